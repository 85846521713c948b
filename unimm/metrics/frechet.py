"""Frechet distance between two sets of features: how far apart their means and spreads are.

Shapes: N pictures, D width of their features.
"""

import torch
from torch import Tensor

from unimm.metrics.feature_sets import check_features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets (Heusel et al., 2017, Eq. 6).

    ``|m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))``. The last trace is the sum of the square roots
    of the eigenvalues of ``S1^(1/2) S2 S1^(1/2)``, which is symmetric: no root of a matrix that is
    not, and no imaginary part to throw away. The estimate is biased upwards by about c / N, so only
    distances of equal N compare.

    Args:
        real: ``(N, D)`` features of real pictures.
        generated: ``(M, D)`` features of generated ones.

    Raises:
        ValueError: a set has no more samples than dimensions (its covariance is singular and the
            distance mostly bias), or features that are not finite, or the widths differ.
    """
    real, generated = check_features(real, generated)
    dim = real.shape[1]
    fewest = min(len(real), len(generated))
    if fewest <= dim:
        raise ValueError(
            f"{fewest} pictures are too few for features of {dim} dimensions: the covariance is "
            f"singular; give at least {dim + 1} (better {10 * dim}), or use kernel_distance"
        )
    shift = (real.mean(0) - generated.mean(0)).square().sum()
    first, second = torch.cov(real.T).view(dim, dim), torch.cov(generated.T).view(dim, dim)
    values, vectors = torch.linalg.eigh(first)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T  # (D, D)
    product = root @ second @ root
    # Rounding leaves tiny negative eigenvalues where a direction has no spread.
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    return float(shift + first.trace() + second.trace() - 2 * shared)
