"""Depth as a mixture of bins, and the losses that it is learned with (DINOv2's protocol).

Legend: ``B`` pictures, ``K`` bins, ``H W`` size.
"""

from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Spacing = Literal["uniform", "log"]
Mixture = Literal["relu", "softmax"]
_SMALLEST = 1e-3
_NUM_SCALES = 4


def bin_centres(
    low: float,
    high: float,
    num_bins: int,
    spacing: Spacing,
    device: torch.device | None = None,
) -> Tensor:
    """Depths ``(num_bins,)`` that a head chooses between."""
    share = torch.linspace(0, 1, num_bins, device=device)
    if spacing == "uniform":
        return low + (high - low) * share
    return low * (high / low) ** share


def depth_of_bins(logits: Tensor, centres: Tensor, mixture: Mixture = "relu") -> Tensor:
    """Expected depth ``(B, H, W)`` of logits ``(B, K, H, W)``.

    Weights are the logits' ReLU + .1, as DINOv2 has them, or their softmax (AdaBins), which learns
    in a tenth of the steps: it has no floor that all bins share.
    """
    weights = logits.float().softmax(1) if mixture == "softmax" else logits.float().relu() + 0.1
    total = torch.einsum("bkhw,k->bhw", weights, centres)
    return total / weights.sum(1)


def silog(depth: Tensor, target: Tensor, mask: Tensor, *, is_warm: bool = True) -> Tensor:
    """Scale-invariant logarithmic loss ``sqrt(var(g) + .15 mean(g)^2)`` (Eigen et al., 2014).

    Args:
        depth: ``(B, H, W)`` predicted.
        target: the same shape.
        mask: where there is truth.
        is_warm: in the first steps only the mean is learned, since the variance alone is content
            with any scale.
    """
    # Sums over all places: picking those with truth would have the host wait for the device.
    gap = torch.where(mask, (depth + _SMALLEST).log() - (target + _SMALLEST).log(), 0.0)
    count = mask.sum().clamp(min=2)
    mean = gap.sum() / count
    variance = (torch.where(mask, gap - mean, 0.0)).square().sum() / (count - 1)
    return ((variance if is_warm else 0.0) + 0.15 * mean.square()).clamp(min=1e-12).sqrt()


@cache
def _differences(device: torch.device) -> Tensor:
    """Kernels ``(2, 1, 2, 2)`` of the difference to the right and downwards."""
    return torch.tensor([[[[-1.0, 1], [0, 0]]], [[[-1, 0], [1, 0]]]], device=device)


def gradient_loss(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Difference of log-depth's gradients at four scales: edges where the truth has them."""
    gap = torch.where(mask, (depth + _SMALLEST).log() - (target + _SMALLEST).log(), 0.0)
    # Both axes by one convolution a scale: a handful of kernels, not dozens.
    apart = _differences(gap.device)
    border = 2 ** (_NUM_SCALES - 1)
    gap, known = (
        functional.pad(x, (0, border, 0, border))[:, None] for x in (gap, mask.to(gap.dtype))
    )
    total = gap.new_zeros(())
    for level in range(_NUM_SCALES):
        step = 2**level
        slope = functional.conv2d(gap, apart, stride=step, dilation=step).abs()  # (B, 2, h, w)
        both = functional.conv2d(known, apart.abs(), stride=step, dilation=step) > 1.5
        means = (slope * both).sum((0, 2, 3)) / both.sum((0, 2, 3)).clamp(min=1)
        total = total + means.sum()
    return total
