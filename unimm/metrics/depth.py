"""Depth against the truth: errors and alignment, pure functions.

Legend: ``B`` pictures, ``H W`` their size.
"""

import torch
from torch import Tensor

_SMALLEST = 1e-6


def depth_errors(depth: Tensor, target: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Errors of each picture (Eigen et al., 2014).

    Args:
        depth: ``(B, H, W)`` predicted.
        target: ``(B, H, W)`` true, positive where ``mask`` is.
        mask: ``(B, H, W)`` bool, where there is truth; every picture needs some.

    Returns:
        ``abs_rel``, mean of ``|d - t| / t``; ``rmse``; ``delta1``, share of pixels with
        ``max(d / t, t / d) < 1.25``; each ``(B,)`` float32.
    """
    assert depth.shape == target.shape == mask.shape, (depth.shape, target.shape, mask.shape)
    true = torch.where(mask, target, 1.0)
    found = torch.where(mask, depth.float(), 1.0).clamp(min=_SMALLEST)
    ratio = torch.maximum(found / true, true / found)
    return {
        "abs_rel": _mean((found - true).abs() / true, mask),
        "rmse": _mean((found - true).square(), mask).sqrt(),
        "delta1": _mean((ratio < 1.25).float(), mask),
    }


def affine_align(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Scale and shift each picture so that it fits the truth best (Ranftl et al., 2020).

    Least squares over the mask, in closed form: what affine-invariant depth is scored after.

    Returns:
        ``(B, H, W)``.
    """
    scale, shift = fit_affine(depth, target, mask)
    return scale[:, None, None] * depth + shift[:, None, None]


def fit_affine(depth: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift ``(B,)`` of the least squares fit; scale 0 where ``depth`` is constant."""
    x, y = depth.double(), target.double()
    mean_x, mean_y = _mean(x, mask), _mean(y, mask)
    dx, dy = x - mean_x[:, None, None], y - mean_y[:, None, None]
    spread = _mean(dx.square(), mask)
    scale = torch.where(spread > 1e-12, _mean(dx * dy, mask) / spread.clamp(min=1e-12), 0.0)
    return scale.to(depth.dtype), (mean_y - scale * mean_x).to(depth.dtype)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask of each picture."""
    kept = torch.where(mask, values, torch.zeros((), dtype=values.dtype, device=values.device))
    return kept.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)
