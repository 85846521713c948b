"""Measures by nearest neighbours: precision, recall, and whether a set was copied from training.

Shapes: N, M pictures, D width of their features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unimm.metrics.feature_sets import check_features

_ROWS = 512  # of a distance matrix at once


class PrecisionRecall(NamedTuple):
    """Share of generated pictures that look real, and of real ones that could be generated."""

    precision: float
    recall: float


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Improved precision and recall (Kynkaanniemi et al., 2019, Eq. 1 and 2).

    A set's manifold is the union of balls around its points, each reaching to its k-th nearest
    neighbour. Recall grows with the number of points: compare equal numbers only.

    Args:
        real: ``(N, D)`` features of real pictures.
        generated: ``(M, D)`` features of generated ones.
        k: 3 in the paper.

    Raises:
        ValueError: a set has no k-th neighbour, or the features do not fit each other.
    """
    real, generated = check_features(real, generated)
    fewest = min(len(real), len(generated))
    if not 1 <= k < fewest:
        raise ValueError(f"k = {k} neighbours among {fewest} pictures; choose 1 <= k < pictures")
    return PrecisionRecall(
        precision=_covered(generated, real, _reach(real, k)),
        recall=_covered(real, generated, _reach(generated, k)),
    )


def authenticity(train: Tensor, generated: Tensor) -> float:
    """Share of generated pictures that are no copies of training ones (Alaa et al., 2022, Eq. 7).

    A picture is a copy if it lies nearer to its nearest training picture than that one's own
    nearest training neighbour does. Fresh pictures of the training distribution get about one half,
    a memoriser 0. It needs the pictures that were trained on, not others of their kind.

    Args:
        train: ``(N, D)`` features of the training pictures.
        generated: ``(M, D)`` features of generated ones.

    Raises:
        ValueError: fewer than two training pictures, or the features do not fit each other.
    """
    train, generated = check_features(train, generated)
    if len(train) < 2:
        raise ValueError("one training picture has no neighbour; give at least two")
    own = _reach(train, 1)  # (N,)
    num_authentic = 0
    for rows in generated.split(_ROWS):
        distance, nearest = _distances(rows, train).min(1)
        num_authentic += int((distance >= own[nearest]).sum())
    return num_authentic / len(generated)


def nearest_ratio(train: Tensor, heldout: Tensor, generated: Tensor) -> float:
    """Median distance to the nearest training picture over that to the nearest held-out one.

    Near 1 for a model that generalises, near 0 for one that recites. Where a set is larger its
    nearest picture is nearer, so both are cut to equal size.

    Args:
        train: ``(N, D)`` features of pictures that were trained on.
        heldout: ``(N', D)`` features of pictures of the same kind that were not.
        generated: ``(M, D)`` features of generated ones.

    Raises:
        ValueError: the features do not fit each other, or the held-out set holds the generated one.
    """
    train, generated = check_features(train, generated)
    heldout, _ = check_features(heldout, generated)
    size = min(len(train), len(heldout))
    to_train, to_heldout = (
        torch.cat([_distances(rows, x[:size]).amin(1) for rows in generated.split(_ROWS)]).median()
        for x in (train, heldout)
    )
    if to_heldout == 0:
        raise ValueError("most generated pictures are in the held-out set itself; give other ones")
    return float(to_train / to_heldout)


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """``(N, M)`` Euclidean distances, by differences: a copy has distance 0 exactly."""
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _reach(points: Tensor, k: int) -> Tensor:
    """Distance of each point to its k-th nearest other point; ``(N,)``."""
    # The point itself is its own nearest, at distance 0.
    parts = [_distances(rows, points).kthvalue(k + 1, dim=1).values for rows in points.split(_ROWS)]
    return torch.cat(parts)


def _covered(points: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Share of points that lie inside at least one ball."""
    parts = [(_distances(rows, centres) <= reach).any(1) for rows in points.split(_ROWS)]
    return float(torch.cat(parts).double().mean())
