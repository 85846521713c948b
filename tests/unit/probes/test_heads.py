import pytest
import torch

from unimm.probes.heads import (
    Features,
    KnnConfig,
    LinearConfig,
    LogisticConfig,
    accuracy,
    fit_linear,
    fit_logistic,
    knn_accuracy,
)


def blobs(count: int, seed: int, *, classes: int = 4, dim: int = 6, far: float = 2.5) -> Features:
    """Gaussian classes of unequal scale; the means are the same for every seed."""
    means = far * torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    x = means[labels] + torch.randn(count, dim, generator=generator)
    return Features(x * torch.logspace(-2, 2, dim) + 7, labels)


@pytest.fixture(scope="module")
def sets():
    return blobs(400, 0), blobs(200, 1), blobs(400, 2)


def test_linear_probe_learns_and_chooses_a_rate(sets):
    train, held, test = sets
    config = LinearConfig(num_steps=300, batch_size=128, learning_rates=(1e-7, 1e-1))
    fitted = fit_linear(train, held, 4, config)
    assert fitted.choice == 0.1  # the other one cannot have moved
    assert accuracy(fitted.logits(test.x), test.y) > 0.93


def test_gradients_by_hand_are_those_of_the_cross_entropy():
    """One step from the start, compared with autograd."""
    train = blobs(64, 0)
    config = LinearConfig(num_steps=1, batch_size=64, learning_rates=(0.5,))
    fitted = fit_linear(train, train, 4, config, seed=3)
    generator = torch.Generator().manual_seed(3)
    weight = (0.01 * torch.randn((1, 6, 4), generator=generator))[0].requires_grad_(True)
    rows = torch.randint(64, (64,), generator=generator)
    x = (train.x - train.x.mean(0)) / train.x.std(0)
    torch.nn.functional.cross_entropy(x[rows] @ weight, train.y[rows]).backward()
    assert weight.grad is not None
    moved = (weight - 0.5 * 64 / 256 * weight.grad).detach()
    assert torch.allclose(fitted.weight, moved, atol=1e-5)


def test_logistic_regression_stands_at_the_minimum(sets):
    """Of the loss with scikit-learn's penalty, 1 / C; and the better C is kept."""
    train, held, test = sets
    strong = fit_logistic(train, held, 4, LogisticConfig(num_strengths=1, max_iterations=50))
    assert strong.choice == pytest.approx(1e-6)
    weight = strong.weight.clone().requires_grad_(True)
    x = (train.x - strong.mean) / strong.std
    loss = torch.nn.functional.cross_entropy(x @ weight + strong.bias, train.y)
    (loss + 0.5 / (1e-6 * len(x)) * weight.square().sum()).backward()
    assert weight.grad is not None and float(weight.grad.abs().max()) < 1e-4
    both = fit_logistic(train, held, 4, LogisticConfig(num_strengths=2, max_iterations=20))
    assert both.choice == pytest.approx(1e5)
    assert accuracy(both.logits(test.x), test.y) > 0.9


def test_neighbours_vote(sets):
    train, held, test = sets
    right, count = knn_accuracy(train, held, test, 4, KnnConfig(counts=(1, 10, 100)))
    assert right > 0.75 and count in (1, 10, 100)  # one axis is much longer than the others
    mixed = Features(train.x, train.y.roll(1))
    assert knn_accuracy(mixed, held, test, 4)[0] < 0.6
