"""Who am I among the processes of a run: ranks, start, sums, end.

Every function is right in a single process too, whether or not ``init_distributed`` was called, so
that code above never asks how many processes there are.
"""

import os
import socket

import torch
import torch.distributed as dist


def rank() -> int:
    """Number of this process in the whole run, 0 to ``world_size() - 1``."""
    return dist.get_rank() if _is_initialized() else 0


def world_size() -> int:
    """How many processes the run has."""
    return dist.get_world_size() if _is_initialized() else 1


def local_rank() -> int:
    """Number of this process on its own machine: the index of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0")) if _is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes logs, checkpoints and pictures."""
    return rank() == 0


def init_distributed(device: str | torch.device) -> None:
    """Join the processes of the run: gloo on a CPU, NCCL on GPUs.

    Started by ``torchrun`` or the DeepSpeed launcher, a process finds its place in the environment.
    Started plainly as ``python train.py``, it becomes the only one of its run, and the same five
    variables are set, because libraries above look for them. Calling it again does nothing.

    Args:
        device: "cpu" or "cuda"; with "cuda" each process takes the GPU of its local rank.

    Raises:
        ValueError: the device is neither, or the machine has no GPU for this process.
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device!r}")
    if _is_initialized():
        return
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
        os.environ["MASTER_PORT"] = str(_free_port())
    if kind == "cuda":
        index = int(os.environ.get("LOCAL_RANK", "0"))
        if index >= torch.cuda.device_count():
            raise ValueError(
                f"no GPU for local rank {index}: this machine has {torch.cuda.device_count()}; "
                "start fewer processes or use device=cpu"
            )
        torch.cuda.set_device(index)
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")


def barrier() -> None:
    """Wait until every process is here."""
    if _is_initialized():
        dist.barrier()


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in place.

    Args:
        tensor: any shape, the same on every process.

    Returns:
        The same tensor, now holding the sum.
    """
    if _is_initialized():
        dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def shutdown() -> None:
    """Leave the run; the last call of a training script."""
    if _is_initialized():
        dist.destroy_process_group()


def _is_initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
