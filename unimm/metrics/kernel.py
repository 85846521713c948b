"""Kernel distance between two sets of features, unbiased at any number of pictures.

Shapes: N pictures, D width of their features, n pictures of one subset.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from unimm.metrics.feature_sets import check_features

_FEWEST = 10  # pictures of a subset


class KernelDistance(NamedTuple):
    """The mean over subsets, and the standard deviation of one subset's value."""

    mean: float
    std: float


def kernel_distance(
    real: Tensor,
    generated: Tensor,
    *,
    generator: Generator,
    num_subsets: int = 100,
    subset_size: int = 1000,
) -> KernelDistance:
    """Squared maximum mean discrepancy with a cubic kernel (KID; Binkowski et al., 2018).

    Args:
        real: ``(N, D)`` features of real pictures.
        generated: ``(M, D)`` features of generated ones.
        generator: on the CPU; draws the subsets.
        num_subsets: how many values are averaged.
        subset_size: n; half of the smaller set where that is less, since subsets that hold all
            pictures are all the same and their spread would say nothing.

    Returns:
        Mean and standard deviation; both sets from one source give a mean near 0, also below it.

    Raises:
        ValueError: fewer than twenty pictures, or features that do not fit each other.
    """
    real, generated = check_features(real, generated)
    fewest = min(len(real), len(generated))
    size = min(subset_size, fewest // 2)
    if size < _FEWEST:
        raise ValueError(
            f"{fewest} pictures say nothing about a distribution; give {2 * _FEWEST} at least"
        )
    values = []
    for _ in range(num_subsets):
        rows = torch.randperm(len(real), generator=generator)[:size].to(real.device)
        others = torch.randperm(len(generated), generator=generator)[:size].to(real.device)
        values.append(squared_discrepancy(real[rows], generated[others]))
    table = torch.stack(values)
    return KernelDistance(float(table.mean()), float(table.std(correction=0)))


def squared_discrepancy(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased MMD^2 of two sets ``(n, D)`` and ``(m, D)`` (Gretton et al., 2012, Eq. 3)."""

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_of_pairs(square: Tensor) -> Tensor:  # a picture is no pair with itself
        n = len(square)
        return (square.sum() - square.diagonal().sum()) / (n * (n - 1))

    same = mean_of_pairs(kernel(first, first)) + mean_of_pairs(kernel(second, second))
    return same - 2 * kernel(first, second).mean()
