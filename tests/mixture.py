"""A mixture of Gaussians whose velocity field is known exactly: eight modes on a ring."""

import math

import torch
from torch import Tensor

MODES, STD = 8, 0.07
ANGLES = torch.arange(MODES, dtype=torch.float64) * (2 * math.pi / MODES)
CENTRES = 1.4 * torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)  # (8, 2)


def expected_data(x: Tensor, t: float) -> Tensor:
    """``E[x0 | x_t]`` of points ``(B, 2)``."""
    centres = CENTRES.to(x.dtype)
    variance = ((1 - t) * STD) ** 2 + t**2
    offset = x[:, None] - (1 - t) * centres  # (B, 8, 2)
    share = (-(offset**2).sum(-1) / (2 * variance)).softmax(-1)  # (B, 8)
    means = centres + (1 - t) * STD**2 / variance * offset
    return (share[..., None] * means).sum(1)


def velocity(x: Tensor, t: float) -> Tensor:
    """``E[e - x0 | x_t]``, exact also at both ends."""
    x0 = expected_data(x, t)
    if t == 0:
        return -x  # the noise is independent of x0 there, and its mean is 0
    return (x - x0) / t


def samples(count: int, seed: int = 0) -> Tensor:
    """Exact samples ``(count, 2)``."""
    generator = torch.Generator().manual_seed(seed)
    mode = torch.randint(MODES, (count,), generator=generator)
    return CENTRES.float()[mode] + STD * torch.randn(count, 2, generator=generator)


def quality(x: Tensor) -> float:
    """Share of points within three and a half standard deviations of a mode."""
    distance = torch.cdist(x.double(), CENTRES).min(dim=1).values
    return float((distance < 3.5 * STD).double().mean())
