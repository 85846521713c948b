"""Intervals of scores: bootstrap over independent units (stories, prompts), never over images."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share with its 95 % interval.

    Attributes:
        value: right / total.
        low: 2.5 % point of the bootstrap.
        high: 97.5 % point.
        total: how many things were judged.
        units: how many independent units they came from.
    """

    value: float
    low: float
    high: float
    total: int
    units: int

    def to_json(self) -> dict[str, float | int]:
        """Plain values, rounded to four places."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def bootstrap_rate(
    right: Sequence[float], total: Sequence[float], *, num_draws: int = 2000, seed: int = 0
) -> Rate:
    """Share of what is right, with an interval that knows that one unit's items correlate.

    Args:
        right: number of right items of each unit (a story's right pages).
        total: number of items of each unit; units without any are left out.
        num_draws: bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: no unit has an item.
    """
    counts, totals = _kept(right, total)
    times = _times_drawn(len(totals), num_draws, seed)
    rates, value = (times @ counts) / (times @ totals), float(counts.sum() / totals.sum())
    return _rate(rates, value, int(totals.sum()), len(totals))


def bootstrap_mean(
    groups: Sequence[tuple[Sequence[float], Sequence[float]]],
    *,
    num_draws: int = 2000,
    seed: int = 0,
) -> Rate:
    """Mean of the shares of several groups (tasks), each weighing the same; drawn group by group.

    Args:
        groups: ``right`` and ``total`` of each, see ``bootstrap_rate``.
        num_draws: bootstrap samples.
        seed: of the resampling.

    Raises:
        ValueError: there is no group, or one has no item.
    """
    if not groups:
        raise ValueError("there is nothing to rate: no group")
    rng = np.random.default_rng(seed)
    drawn = [_resample(right, total, num_draws, rng) for right, total in groups]
    return _rate(
        np.mean([rates for rates, *_ in drawn], axis=0),
        float(np.mean([value for _, value, _ in drawn])),
        int(sum(totals.sum() for *_, totals in drawn)),
        sum(len(totals) for *_, totals in drawn),
    )


def _resample(
    right: Sequence[float], total: Sequence[float], num_draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, float, np.ndarray]:
    """Shares of bootstrap samples ``(num_draws,)``, the share itself, and the units' totals."""
    counts, totals = _kept(right, total)
    index = rng.integers(len(totals), size=(num_draws, len(totals)))
    rates = counts[index].sum(1) / totals[index].sum(1)
    return rates, float(counts.sum() / totals.sum()), totals


def _kept(right: Sequence[float], total: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The units that have an item."""
    counts, totals = np.asarray(right, float), np.asarray(total, float)
    counts, totals = counts[totals > 0], totals[totals > 0]
    if not len(totals):
        raise ValueError("there is nothing to rate: every unit is empty")
    return counts, totals


@lru_cache(maxsize=16)
def _times_drawn(num_units: int, num_draws: int, seed: int) -> np.ndarray:
    """How often each unit is in each resample ``(num_draws, num_units)``; many rates share it."""
    index = np.random.default_rng(seed).integers(num_units, size=(num_draws, num_units))
    times = np.zeros((num_draws, num_units))
    np.add.at(times, (np.arange(num_draws)[:, None], index), 1)
    return times


def _rate(rates: np.ndarray, value: float, total: int, units: int) -> Rate:
    low, high = np.quantile(rates, [0.025, 0.975])
    return Rate(value=value, low=float(low), high=float(high), total=total, units=units)


class Tally:
    """Right and total of each unit, added up one thing at a time."""

    def __init__(self) -> None:
        self._right: dict[int, float] = defaultdict(float)
        self._total: dict[int, float] = defaultdict(float)

    def add(self, unit: int, right: float, total: float = 1) -> None:
        """Count ``right`` of ``total`` things of a unit."""
        self._right[unit] += right
        self._total[unit] += total

    def rate(self) -> Rate:
        """The share over all units, with its interval over units.

        Raises:
            ValueError: nothing was counted.
        """
        return bootstrap_rate([self._right[u] for u in self._total], list(self._total.values()))
