"""Variance-preserving models (DDPM, Stable Diffusion) as the same path, rescaled.

``x_vp = alpha x0 + sigma e`` with ``alpha^2 + sigma^2 = 1`` is a point of the straight path at
``t = sigma / (alpha + sigma)``, divided by ``alpha + sigma``. So a trained VP model is a velocity
field like any other, and no second noise process is needed.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from unimm.diffusion.path import from_noise, spread

Schedule = Literal["linear", "scaled_linear", "cosine"]
Prediction = Literal["noise", "v"]


def vp_times(schedule: Schedule, num_steps: int = 1000) -> Tensor:
    """Times of the straight path that a VP schedule's steps lie at.

    Args:
        schedule: ``linear`` (DDPM), ``scaled_linear`` (Stable Diffusion) or ``cosine`` (Nichol and
            Dhariwal, 2021).
        num_steps: steps of the schedule.

    Returns:
        ``(num_steps,)`` float64, rising.
    """
    if schedule == "cosine":
        grid = torch.linspace(0, 1, num_steps + 1, dtype=torch.float64)
        bars = torch.cos((grid + 0.008) / 1.008 * math.pi / 2) ** 2
        kept = (bars[1:] / bars[:-1]).clamp(min=1e-3)
    elif schedule == "linear":
        kept = 1 - torch.linspace(1e-4, 0.02, num_steps, dtype=torch.float64)
    else:
        roots = torch.linspace(0.00085**0.5, 0.012**0.5, num_steps, dtype=torch.float64)
        kept = 1 - roots**2
    squared = kept.cumprod(0)  # alpha^2
    alpha, sigma = squared.sqrt(), (1 - squared).sqrt()
    return sigma / (alpha + sigma)


def vp_scale(t: Tensor | float) -> Tensor | float:
    """What a point of the path is multiplied with to be the VP process's: its alpha + sigma."""
    return ((1 - t) ** 2 + t**2) ** -0.5


def velocity_of_vp(
    model: Callable[[Tensor, Tensor], Tensor], times: Tensor, *, predicts: Prediction = "noise"
) -> Callable[[Tensor, Tensor], Tensor]:
    """Read a VP model as a velocity field on the straight path.

    Args:
        model: ``(x_vp (B, ...), step (B,) float32) -> (B, ...)``; steps may lie between integers.
        times: ``(num_steps,)`` of ``vp_times``.
        predicts: the noise, or Salimans and Ho's ``v = alpha e - sigma x0``.

    Returns:
        ``(x_t (B, ...), t (B,)) -> (B, ...)``. Times outside the schedule are drawn in to it: most
        VP schedules do not reach ``t = 1``.
    """

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        inside = t.double().clamp(float(times[0]), float(times[-1]))
        scaled = spread(vp_scale(inside), x)  # pyright: ignore[reportArgumentType]
        x_vp = x * scaled
        predicted = model(x_vp.to(x.dtype), _step_at(inside, times))
        if predicts == "v":
            alpha, sigma = (1 - spread(inside, x)) * scaled, spread(inside, x) * scaled
            predicted = sigma * x_vp + alpha * predicted
        return from_noise(x, predicted, inside).to(x.dtype)

    return velocity


def _step_at(t: Tensor, times: Tensor) -> Tensor:
    """Steps ``(B,)`` of times ``(B,)``, interpolated."""
    times = times.to(t.device)
    above = torch.searchsorted(times, t.contiguous()).clamp(1, len(times) - 1)
    low, high = times[above - 1], times[above]
    return (above - 1 + (t - low) / (high - low)).float()
