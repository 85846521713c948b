"""The one path from data to noise, and every conversion between what a network may predict.

``x_t = (1 - t) x0 + t e`` with data ``x0`` at ``t = 0`` and noise ``e ~ N(0, 1)`` at ``t = 1``; the
velocity is ``v = dx_t / dt = e - x0`` (rectified flow: Liu et al., 2022; direction as in SD3).
Times are float32 or Python floats, never half precision. Legend: ``B`` samples, ``...`` the rest.
"""

import math
from typing import Literal

import torch
from torch import Tensor

MIN_TIME = 1e-3  # conversions divide by t or 1 - t: neither goes below this

Time = Tensor | float
"""One time for all samples, or ``(B,)`` float32."""

Space = Literal["velocity", "data", "noise"]


def spread(t: Time, like: Tensor) -> Time:
    """Give times ``(B,)`` the trailing axes of ``like (B, ...)``, so that they broadcast."""
    if not isinstance(t, Tensor) or t.ndim == 0:
        return t
    assert t.dtype == torch.float32 or t.dtype == torch.float64, t.dtype
    return t.view(-1, *[1] * (like.ndim - 1))


def add_noise(x0: Tensor, noise: Tensor, t: Time) -> Tensor:
    """Go from data ``(B, ...)`` to time ``t`` of the path."""
    t = spread(t, x0)
    return (1 - t) * x0 + t * noise


def velocity_of(x0: Tensor, noise: Tensor) -> Tensor:
    """The velocity of the straight line from ``x0`` to ``noise``: what a network learns."""
    return noise - x0


def to_data(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """Estimate ``x0`` from a point of the path and its velocity."""
    return x - spread(t, x) * velocity


def to_noise(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """Estimate the noise from a point of the path and its velocity."""
    return x + (1 - spread(t, x)) * velocity


def to_score(x: Tensor, velocity: Tensor, t: Time) -> Tensor:
    """Estimate ``grad log p_t(x)``, which is minus the expected noise over ``t``."""
    return -to_noise(x, velocity, t) / _at_least(spread(t, x), MIN_TIME)


def from_data(x: Tensor, x0: Tensor, t: Time) -> Tensor:
    """Velocity of a network that predicts ``x0``."""
    return (x - x0) / _at_least(spread(t, x), MIN_TIME)


def from_noise(x: Tensor, noise: Tensor, t: Time) -> Tensor:
    """Velocity of a network that predicts the noise."""
    return (noise - x) / _at_least(1 - spread(t, x), MIN_TIME)


def error_weight(t: Time, space: Space) -> Time:
    """What a squared error in a space is multiplied with to be the velocity's squared error.

    ``||v err||^2 = ||x0 err||^2 / t^2 = ||e err||^2 / (1 - t)^2``: choosing the space of a loss is
    choosing this weight, and it is chosen nowhere else.
    """
    if space == "velocity":
        return torch.ones_like(t) if isinstance(t, Tensor) else 1.0
    distance = t if space == "data" else 1 - t
    return 1 / _at_least(distance, MIN_TIME) ** 2


def log_snr(t: float) -> float:
    """Half the log signal-to-noise ratio, ``log((1 - t) / t)``: the solvers' lambda.

    The ends lie at infinity; they are drawn in to ``MIN_TIME``.
    """
    t = min(max(t, MIN_TIME), 1 - MIN_TIME)
    return math.log((1 - t) / t)


def _at_least(value: Time, bound: float) -> Time:
    return value.clamp(min=bound) if isinstance(value, Tensor) else max(value, bound)
