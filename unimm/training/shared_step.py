"""One optimizer step over micro-batches and ranks: how it is cut, what all must know before it."""

from dataclasses import dataclass

import torch

from unimm.distributed import all_reduce_sum, rank, world_size
from unimm.document import Batch
from unimm.training.config import TrainConfig


def cut_step(config: TrainConfig, *, num_ranks: int) -> tuple[int, int]:
    """Give rows of a micro-batch and micro-batches of a step, for a number of ranks.

    Raises:
        ValueError: the rows of a step cannot be cut so.
    """
    rows = config.data.rows_per_step
    micro_rows = config.data.micro_rows or rows // num_ranks
    if micro_rows == 0 or rows % (micro_rows * num_ranks):
        raise ValueError(
            f"rows_per_step {rows} is not a multiple of {micro_rows or 1} micro_rows times "
            f"{num_ranks} processes"
        )
    return micro_rows, rows // (micro_rows * num_ranks)


@dataclass(frozen=True, kw_only=True)
class Agreed:
    """What all ranks must know before a step.

    Attributes:
        counts: predictions of each head over the whole step.
        flops: operations of the step.
        images: pictures drawn in the step.
        progress: of the run after the step, by the first rank's clock.
        is_stopped: whether any rank was told to stop.
    """

    counts: dict[str, int]
    flops: float
    images: int
    progress: float
    is_stopped: bool


def agree(
    micro_batches: list[Batch],
    flops: float,
    progress: float,
    is_stopped: bool,
    device: torch.device,
) -> Agreed:
    """Sum a step's counts over micro-batches and ranks, and share clock and signals.

    Args:
        micro_batches: of this rank, on the host.
        flops: of this rank in the step.
        progress: by this rank's clock.
        is_stopped: whether this rank was told to stop.
        device: for the collective.
    """
    heads = list(micro_batches[0].slots)
    counts = {head: sum(len(batch.slots[head].index) for batch in micro_batches) for head in heads}
    images = sum(len(slots.seeds) for batch in micro_batches for slots in batch.slots.values())
    own = [*counts.values(), flops, images, progress if rank() == 0 else 0.0, float(is_stopped)]
    summed = own
    if world_size() > 1:
        summed = all_reduce_sum(torch.tensor(own, dtype=torch.float64, device=device)).tolist()
    return Agreed(
        counts={head: round(number) for head, number in zip(heads, summed, strict=False)},
        flops=summed[-4],
        images=round(summed[-3]),
        progress=summed[-2],
        is_stopped=summed[-1] > 0,
    )
