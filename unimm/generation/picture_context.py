"""What a finished picture leaves in the cache, and how many positions it takes there."""

import itertools
from weakref import WeakKeyDictionary

import numpy as np
import torch

from unimm.document import Ids
from unimm.model import UniMM
from unimm.objectives.base import ObjectiveConfig

_lengths: "WeakKeyDictionary[UniMM, dict[str, tuple[int, int]]]" = WeakKeyDictionary()


def picture_lengths(model: UniMM, objective: str | None = None) -> tuple[int, int]:
    """Positions that a picture takes in the cache, ``<boi>`` and ``<eoi>`` included.

    Returns:
        How many stay, and how many there are at most while it is drawn.
    """
    config = model.config.find_objective(objective)
    known = _lengths.setdefault(model, {})
    if config.name not in known:
        known[config.name] = _count_lengths(model, config)
    return known[config.name]


def _count_lengths(model: UniMM, config: ObjectiveConfig) -> tuple[int, int]:
    """Lay a picture out, once a model, to see."""
    zeros = model.objective(config.name).zeros(torch.device("cpu"))[0]
    side = model.spec.grid_size
    codes = torch.zeros(side, side, dtype=torch.int64) if zeros.codes is None else zeros.codes
    kept = 2 + config.context(codes.numpy(), model.special).input_ids.shape[0]
    return kept, max(kept, 1 + config.layout(zeros, model.special).input_ids.shape[0])


def context_steps(block_ids: Ids) -> list[tuple[int, int, bool]]:
    """Steps in which a context ``(n,)`` is read: first position, end, whether it is causal."""
    length = block_ids.shape[0]
    if int(block_ids[-1]) == length - 1:  # every block is one position
        return [(0, length, True)]
    starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(block_ids)))]
    return [(start, end, False) for start, end in itertools.pairwise([*starts, length])]
