"""Kernel distance against sums over all pairs."""

import itertools

import pytest
import torch

from unimm.metrics.kernel import kernel_distance, squared_discrepancy


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_value_of_a_subset_is_the_mean_over_pairs() -> None:
    x, y = torch.randn(2, 7, 4, generator=seeded()).double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 4 + 1) ** 3)

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    within = mean([kernel(a, b) for a, b in itertools.permutations(x, 2)])
    within += mean([kernel(a, b) for a, b in itertools.permutations(y, 2)])
    across = mean([kernel(a, b) for a, b in itertools.product(x, y)])
    assert float(squared_discrepancy(x, y)) == pytest.approx(within - 2 * across, rel=1e-12)


def test_one_source_gives_zero_within_its_error_and_another_does_not() -> None:
    x, y = torch.randn(2, 400, 8, generator=seeded(1))
    same = kernel_distance(x, y, generator=seeded(), subset_size=200)
    assert abs(same.mean) < 2 * same.std
    other = kernel_distance(x, y + 0.5, generator=seeded(), subset_size=200)
    assert other.mean > 5 * other.std
    assert kernel_distance(x, y, generator=seeded(), subset_size=200) == same
    # Subsets of all pictures would be equal and have no spread.
    assert kernel_distance(x, y, generator=seeded(), subset_size=1000).std > 0


def test_too_few_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="19 pictures say nothing"):
        kernel_distance(torch.randn(50, 3), torch.randn(19, 3), generator=seeded())
