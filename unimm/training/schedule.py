"""How far a run is, and the learning rate that follows from it."""

import math
import time
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Clock:
    """Says which share of a run is done, by steps and, where bounded, by time.

    The first step of a process compiles and warms up; time counts from its end, so that a schedule
    does not run while nothing is learned, but the whole still ends in time.

    Attributes:
        max_steps: steps of the whole run.
        max_seconds: of the whole run, all processes' first steps included; None for no bound.
        max_flops: floating-point operations of the whole run; None for no bound.
        seconds: spent before this process.
        warm_seconds: spent in first steps.
    """

    max_steps: int
    max_seconds: float | None = None
    max_flops: float | None = None
    seconds: float = 0.0
    warm_seconds: float = 0.0
    _started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds of the whole run so far."""
        return self.seconds + time.monotonic() - self._started

    def mark_warm(self) -> None:
        """Say that the process's first step is done."""
        self.warm_seconds += time.monotonic() - self._started

    def share_of_work(self, flops: float) -> float:
        """Give the share of the run that is done after so many operations of all ranks."""
        return 0.0 if self.max_flops is None else min(flops / self.max_flops, 1.0)

    def progress(self, step: int) -> float:
        """Give the share of the run that is done after ``step`` steps and the time till now."""
        share = step / self.max_steps
        if self.max_seconds is not None:
            useful = max(self.max_seconds - self.warm_seconds, 1e-6)
            share = max(share, (self.elapsed() - self.warm_seconds) / useful)
        return min(share, 1.0)


def learning_rate_factor(progress: float, *, warmup: float, hold: float, final: float) -> float:
    """Warm up, stay, decay: linear up to ``warmup``, 1 up to ``hold``, then a cosine to ``final``.

    All arguments are shares; ``hold`` equal to ``warmup`` is the plain cosine schedule.
    """
    if progress < warmup:
        return progress / warmup
    if progress < hold:
        return 1.0
    position = min((progress - hold) / max(1.0 - hold, 1e-9), 1.0)
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * position))
