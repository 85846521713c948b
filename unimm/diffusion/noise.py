"""Noise with structure at every scale, for tasks whose answer is smooth, such as depth.

Legend: ``B`` samples, ``C h w`` latents.
"""

import torch
from torch import Tensor
from torch.nn import functional


def multi_resolution_noise(
    shape: tuple[int, int, int, int],
    strength: Tensor | float,
    *,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Tensor:
    """A pyramid of noises, coarse ones weighted by powers of ``strength`` (Ke et al., 2024).

    Args:
        shape: ``(B, C, h, w)``.
        strength: weight of each further halving, one number or ``(B,)``; 0 is plain noise.
            Annealing multiplies it by the time.
        generator: of the noise, on ``device``.
        device: of the result.

    Returns:
        ``(B, C, h, w)`` with standard deviation 1.
    """
    batch, channels, height, width = shape
    total = torch.randn(shape, generator=generator, device=device)
    weight = torch.as_tensor(strength, dtype=torch.float32, device=device).expand(batch)
    variance = torch.ones(batch, device=device)
    level = 1
    while min(height, width) >> level >= 1:
        size = (height >> level, width >> level)
        coarse = torch.randn((batch, channels, *size), generator=generator, device=device)
        grown = functional.interpolate(coarse, size=(height, width), mode="nearest-exact")
        share = weight**level
        total = total + share[:, None, None, None] * grown
        variance = variance + share.square()
        level += 1
    return total / variance.sqrt()[:, None, None, None]
