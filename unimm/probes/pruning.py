"""Staged pruning: few draws for all candidates, more for those that are left (Li et al., 2023).

Legend: ``N`` pictures, ``C`` candidates of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from unimm.probes.likelihood import Scorer


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        num_draws: draws that every candidate left has had after it.
        keep: candidates that are left then.
    """

    num_draws: int
    keep: int


class Ranking(NamedTuple):
    """What pruning gives.

    Attributes:
        choice: ``(N,)`` the candidate that is left.
        evaluations: whole pictures that a network ran over, for each picture classified.
    """

    choice: Tensor
    evaluations: float


def prune(scorer: Scorer, candidates: Tensor, stages: Sequence[Stage]) -> Ranking:
    """Choose a candidate for every picture.

    Args:
        scorer: of pictures and texts.
        candidates: ``(N, C)`` int64 texts of each picture.
        stages: the last one keeps one.

    Raises:
        ValueError: if stages do not grow in draws, shrink in candidates and end with one.
    """
    draws = [stage.num_draws for stage in stages]
    kept = [stage.keep for stage in stages]
    if not stages or kept[-1] != 1 or sorted(set(draws)) != draws or sorted(kept)[::-1] != kept:
        raise ValueError(f"stages {stages} must grow in draws, shrink in candidates and end with 1")
    num_pictures, count = candidates.shape
    alive = torch.arange(count, device=candidates.device).expand(num_pictures, -1)  # (N, left)
    sums = torch.zeros(num_pictures, count, device=candidates.device)
    before, done = scorer.evaluations, 0
    for stage in stages:
        last = min(stage.num_draws, scorer.num_draws)
        if last > done:
            rows = torch.arange(num_pictures, device=alive.device).repeat_interleave(alive.shape[1])
            columns = candidates.gather(1, alive).flatten()
            found = scorer.losses(rows, columns, done, last).view(alive.shape)
            sums = sums.scatter_add(1, alive, found.to(sums.dtype))
            done = last
        keep = min(stage.keep, alive.shape[1])
        best = sums.gather(1, alive).topk(keep, largest=False).indices
        alive = alive.gather(1, best)
    return Ranking(alive[:, 0], (scorer.evaluations - before) / num_pictures)
