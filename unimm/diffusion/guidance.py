"""Classifier-free guidance as a wrapper: samplers, teachers and solvers never know of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How branches are mixed.

    Attributes:
        scale: 1 is the conditional branch alone (Ho and Salimans, 2022).
        middle_scale: of a second condition that the middle branch keeps, as the source picture of
            an edit (Brooks et al., 2023, Eq. 3); None for two branches.
        other_scales: of further branches after the unconditional one, each of which hides something
            else and adds its own push away from itself; not together with ``middle_scale``.
        interval: times within which guidance is on, ``(low, high]`` (Kynkäänniemi et al., 2024).
    """

    scale: float = 1.0
    middle_scale: float | None = None
    other_scales: tuple[float, ...] = ()
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf"):
            raise ValueError(f"scale must be 1 (off) or larger, got {self.scale}")
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(f"interval must rise within 0 to 1, got {self.interval}")

    @property
    def num_branches(self) -> int:
        """Branches that guidance needs where it is on."""
        if self.middle_scale is not None:
            return 3
        return 1 if self.scale == 1 else 2 + len(self.other_scales)

    def branches_at(self, t: float) -> int:
        """Branches to evaluate at a time: only the conditional one outside the interval."""
        low, high = self.interval
        return self.num_branches if low < t <= high else 1

    def mix(self, outputs: Tensor, t: float) -> Tensor:
        """Mix ``(G B, ...)`` of the branches at time ``t`` into ``(B, ...)``.

        Branches come conditional first, then (with ``middle_scale``) the one that keeps only the
        second condition, the unconditional one, and those of ``other_scales``.
        """
        branches = self.branches_at(t)
        if branches == 1:
            return outputs
        if self.middle_scale is not None:
            conditional, middle, unconditional = outputs.chunk(3)
            return (
                unconditional
                + self.middle_scale * (middle - unconditional)
                + self.scale * (conditional - middle)
            )
        conditional, unconditional, *others = outputs.chunk(branches)
        mixed = unconditional + self.scale * (conditional - unconditional)
        for scale, other in zip(self.other_scales, others, strict=True):
            mixed = mixed + (scale - 1) * (conditional - other)
        return mixed


BranchVelocity = Callable[[Tensor, Tensor, int], Tensor]
"""``(x (G B, ...), t (G B,), G) -> (G B, ...)``: one call evaluates all branches."""


def guided(velocity: BranchVelocity, guidance: Guidance) -> Callable[[Tensor, float], Tensor]:
    """Wrap a velocity field with branches into one without: ``(x (B, ...), t) -> (B, ...)``."""

    def mixed(x: Tensor, t: float) -> Tensor:
        branches = guidance.branches_at(t)
        times = torch.full((branches * len(x),), t, device=x.device)  # float32
        repeated = x.repeat(branches, *[1] * (x.ndim - 1))
        return guidance.mix(velocity(repeated, times, branches), t)

    return mixed
