"""Notices a loss that is no longer a number, without waiting for the device in every step."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from unimm.distributed import rank
from unimm.document import Batch


class LossWatch:
    """Keeps the batches of the last steps until their losses were looked at.

    Args:
        run_dir: where an offending batch is saved.
    """

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._kept: list[tuple[int, Batch, Tensor]] = []

    def add(self, step: int, batch: Batch, total: Tensor) -> None:
        """Keep a batch (its copy on the host) and its scalar loss."""
        self._kept.append((step, batch, total.detach()))

    def check(self) -> None:
        """Look at the losses since the last check.

        Raises:
            RuntimeError: one is not finite; its batch was saved and is named.
        """
        kept, self._kept = self._kept, []
        if not kept:
            return
        is_finite = torch.stack([total for *_, total in kept]).isfinite().tolist()
        for (step, batch, total), is_good in zip(kept, is_finite, strict=True):
            if not is_good:
                path = self._run_dir / f"bad_batch_step_{step}_rank_{rank()}.safetensors"
                save_batch(batch, path)
                raise RuntimeError(
                    f"the loss is {float(total)} at step {step}; its batch was saved to {path}. "
                    "Lower optimizer.learning_rate, or look at the documents named in the file"
                )


def save_batch(batch: Batch, path: Path) -> None:
    """Write a batch's tensors, and in the metadata the numbers of its documents."""
    tensors = {name: tensor for name, tensor in vars(batch).items() if isinstance(tensor, Tensor)}
    for head, slots in batch.slots.items():
        tensors[f"slots.{head}.index"] = slots.index
        if slots.tokens is not None and slots.tokens.codes is not None:
            tensors[f"slots.{head}.codes"] = slots.tokens.codes
    save_file(
        {name: tensor.cpu().contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"document_indices": json.dumps(batch.document_indices)},
    )
