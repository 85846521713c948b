"""Frechet distance against closed forms and a textbook matrix root."""

import numpy as np
import pytest
import torch

from unimm.metrics.frechet import frechet_distance


def whitened(num: int, dim: int, seed: int) -> torch.Tensor:
    """Points whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    x = torch.randn(num, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov(x.T))
    return x @ (vectors / values.sqrt()) @ vectors.T


def test_distance_of_gaussians_is_the_closed_form() -> None:
    x, y = whitened(200, 5, 0), whitened(300, 5, 1)
    assert frechet_distance(x, y) == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 3.0], dtype=torch.float64)
    scale = torch.tensor([2.0, 1.0, 0.5, 3.0, 1.0], dtype=torch.float64)
    # Diagonal spreads: sum of shift^2 + (s1 - s2)^2.
    expected = float((shift**2 + (scale - 1) ** 2).sum())
    assert frechet_distance(x, y * scale + shift) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(y * scale + shift, x) == pytest.approx(expected, rel=1e-9)


def test_agrees_with_a_root_of_the_product_that_is_not_symmetric() -> None:
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(2, 6, 6, generator=generator, dtype=torch.float64)
    x, y = whitened(100, 6, 3) @ mix[0], whitened(90, 6, 4) @ mix[1] + 0.3
    s1, s2 = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    values, vectors = np.linalg.eig(s1 @ s2)
    root = vectors @ np.diag(np.sqrt(values)) @ np.linalg.inv(vectors)
    np.testing.assert_allclose(root @ root, s1 @ s2, atol=1e-8)
    shift = ((x.mean(0) - y.mean(0)) ** 2).sum().item()
    expected = shift + np.trace(s1 + s2 - 2 * root.real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-9)


def test_a_direction_without_spread_does_no_harm() -> None:
    x = torch.cat([whitened(50, 3, 5), torch.full((50, 1), 7.0, dtype=torch.float64)], 1)
    y = x.clone()
    y[:, 3] += 2
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(x, y) == pytest.approx(4, abs=1e-6)


def test_fewer_pictures_give_a_larger_distance_for_one_source() -> None:
    generator = torch.Generator().manual_seed(6)
    few, many = torch.randn(2, 40, 16, generator=generator), torch.randn(2, 4000, 16)
    assert frechet_distance(*few) > 10 * frechet_distance(*many)


def test_features_that_cannot_be_compared_are_refused() -> None:
    x = torch.randn(20, 8)
    with pytest.raises(ValueError, match="8 pictures are too few for features of 8 dimensions"):
        frechet_distance(x, x[:8])
    with pytest.raises(ValueError, match="one extractor"):
        frechet_distance(x, torch.randn(20, 7))
    with pytest.raises(ValueError, match="1 of 20 generated features are not finite"):
        frechet_distance(x, x.index_fill(0, torch.tensor([3]), torch.nan))
    with pytest.raises(ValueError, match="one row a picture"):
        frechet_distance(torch.randn(20), x)
