"""Which times are trained on, which are stepped through, and how both shift with resolution."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TimeConfig:
    """Density of training times (Esser et al., 2024, section 3.1).

    A density takes the place of a loss weight: with one, the loss is the plain squared error of the
    velocity.

    Attributes:
        density: ``logit_normal``, ``uniform`` or ``mode``.
        mean: of the logit; positive favours noise.
        std: of the logit.
        mode_scale: of ``mode``, from -1 to 1.75; positive favours the middle.
        shift: moves times towards noise, for larger pictures; 1 is none.
    """

    density: Literal["logit_normal", "uniform", "mode"] = "logit_normal"
    mean: float = 0.0
    std: float = 1.0
    mode_scale: float = 1.29
    shift: float = 1.0

    def __post_init__(self) -> None:
        checks = (
            (self.std > 0, "std", "positive"),
            (-1 <= self.mode_scale <= 2 / (math.pi - 2), "mode_scale", "from -1 to 1.75"),
            (self.shift > 0, "shift", "positive; 1 is no shift"),
        )
        for is_good, name, rule in checks:
            if not is_good:
                raise ValueError(f"{name} must be {rule}, got {getattr(self, name)}")


def sample_times(uniform: Tensor, config: TimeConfig) -> Tensor:
    """Turn uniform numbers into training times by inverting the density's cumulative.

    Args:
        uniform: ``(...)`` in [0, 1), so that equally spaced numbers give a stratified draw.
        config: the density.

    Returns:
        ``(...)`` float32 in (0, 1].
    """
    # In (0, 1): the logit-normal's ends lie at infinity.
    u = uniform.double().clamp(1e-7, 1 - 1e-7)
    if config.density == "logit_normal":
        t = torch.sigmoid(config.mean + config.std * torch.special.ndtri(u))
    elif config.density == "mode":  # Eq. 20
        t = 1 - u - config.mode_scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)
    else:
        t = u
    return shift_times(t, config.shift).float()


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Move times towards noise, keeping 0 and 1 (Esser et al., 2024, Eq. 23)."""
    return shift * t / (1 + (shift - 1) * t)


def resolution_shift(num_tokens: int, base_tokens: int) -> float:
    """The shift at which a picture of more tokens is as uncertain as one of ``base_tokens``."""
    return math.sqrt(num_tokens / base_tokens)


def time_grid(num_steps: int, *, shift: float = 1.0, start: float = 1.0) -> tuple[float, ...]:
    """Times of a sampler from ``start`` to 0.

    Args:
        num_steps: steps; one time more is given.
        shift: as in training, once: never also shift the grid's ends.
        start: where sampling begins; below 1 for a picture that is noised and drawn again.

    Raises:
        ValueError: if there is no step to make.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}")
    if not 0 < start <= 1:
        raise ValueError(f"start must be in (0, 1], got {start}")
    even = (1 - i / num_steps for i in range(num_steps + 1))
    return tuple(start * shift * t / (1 + (shift - 1) * t) for t in even)
