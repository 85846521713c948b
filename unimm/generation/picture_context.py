"""What a finished picture leaves in the cache, and how many positions it takes there."""

import itertools

import torch
from torch import Tensor

from unimm.model import UniMM
from unimm.objectives.base import ObjectiveConfig


def find_objective(model: UniMM, name: str | None = None) -> ObjectiveConfig:
    """Configuration of an objective of the model, by default its first.

    Raises:
        ValueError: if the model was not built with it.
    """
    configs = {config.name: config for config in model.config.objectives}
    if name is not None and name not in configs:
        raise ValueError(f"this model draws by {', '.join(configs)}, not by {name!r}")
    return next(iter(configs.values())) if name is None else configs[name]


def picture_lengths(model: UniMM, objective: str | None = None) -> tuple[int, int]:
    """Positions that a picture takes in the cache, ``<boi>`` and ``<eoi>`` included.

    Returns:
        How many stay, and how many there are at most while it is drawn.
    """
    config = find_objective(model, objective)
    zeros = model.objective(config.name).zeros(torch.device("cpu"))[0]
    side = model.spec.grid_size
    codes = torch.zeros(side, side, dtype=torch.int64) if zeros.codes is None else zeros.codes
    kept = 2 + config.context(codes, model.special).input_ids.shape[0]
    return kept, max(kept, 1 + config.layout(zeros, model.special).input_ids.shape[0])


def context_steps(block_ids: Tensor) -> list[tuple[int, int, bool]]:
    """Steps in which a context ``(n,)`` is read: first position, end, whether it is causal."""
    length = block_ids.shape[0]
    if int(block_ids[-1]) == length - 1:  # every block is one position
        return [(0, length, True)]
    starts = [0, *(int(i) + 1 for i in block_ids.diff().nonzero()[:, 0])]
    return [(start, end, False) for start, end in itertools.pairwise([*starts, length])]
