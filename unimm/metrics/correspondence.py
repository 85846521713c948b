"""Percentage of correct keypoints, a pure function.

Legend: ``P`` pairs, ``K`` keypoints.
"""

import torch
from torch import Tensor


def keypoint_hits(found: Tensor, target: Tensor, boxes: Tensor, *, alpha: float = 0.1) -> Tensor:
    """Which points lie within ``alpha`` of the larger side of the target's box (SPair-71k).

    Args:
        found: ``(P, K, 2)`` predicted, x and y in pixels.
        target: ``(P, K, 2)`` true.
        boxes: ``(P, 4)`` left, top, right, bottom in the target picture.
        alpha: share of the box.

    Returns:
        ``(P, K)`` bool.
    """
    reach = alpha * torch.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    return (found - target).norm(dim=-1) <= reach[:, None]


def summarise_hits(hits: Tensor, is_known: Tensor) -> dict[str, float]:
    """Share of right points, over all points and as the mean over pairs that have any.

    Args:
        hits: ``(P, K)`` bool.
        is_known: ``(P, K)`` bool, points that are seen in both pictures.
    """
    right, known = (hits & is_known).sum(1), is_known.sum(1)
    has_any = known > 0
    per_pair = right[has_any] / known[has_any]
    return {
        "per point": float(right.sum() / known.sum().clamp(min=1)),
        "per picture": float(per_pair.mean()) if len(per_pair) else 0.0,
    }
