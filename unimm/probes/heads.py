"""Classifiers on frozen, pooled features: linear, nearest neighbours, logistic regression.

The protocol is DINOv2's (Oquab et al., 2023, appendix B). Legend: ``N`` pictures, ``D`` width,
``C`` classes, ``G`` learning rates that are trained at once.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """A linear probe.

    Attributes:
        learning_rates: trained side by side, each scaled by batch_size / 256; the best on the
            validation set is kept.
        num_steps: of SGD with momentum .9, no weight decay, a cosine to 0.
        batch_size: pictures a step.
    """

    learning_rates: tuple[float, ...] = _RATES
    num_steps: int = 12_500
    batch_size: int = 1024


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """Nearest neighbours by cosine.

    Attributes:
        counts: numbers of neighbours; the best on the validation set is kept.
        temperature: of the votes.
    """

    counts: tuple[int, ...] = (10, 20, 100, 200)
    temperature: float = 0.07


@dataclass(frozen=True, kw_only=True)
class LogisticConfig:
    """Logistic regression by L-BFGS.

    Attributes:
        num_strengths: values of C from 1e-6 to 1e5, tried from the strongest penalty on, each from
            the weights of the one before.
        max_iterations: of each.
    """

    num_strengths: int = 45
    max_iterations: int = 100


class Features(NamedTuple):
    """Pooled features of a split with its labels: ``(N, D)`` float32 and ``(N,)`` int64."""

    x: Tensor
    y: Tensor


class Classifier(NamedTuple):
    """A fitted head.

    Attributes:
        weight: ``(D, C)``.
        bias: ``(C,)``.
        mean: ``(D,)``, subtracted first.
        std: ``(D,)``, divided by then.
        choice: what was chosen on the validation set.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    std: Tensor
    choice: float

    def logits(self, x: Tensor) -> Tensor:
        """``(N, D)`` to ``(N, C)``."""
        return (x - self.mean) / self.std @ self.weight + self.bias


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of pictures whose largest logit is the right one."""
    return float((logits.argmax(-1) == labels).float().mean())


def fit_linear(
    train: Features,
    validation: Features,
    num_classes: int,
    config: LinearConfig | None = None,
    *,
    seed: int = 0,
) -> Classifier:
    """Train a linear probe with every learning rate at once and keep the best.

    Features are standardised first, so that one grid of rates suits any source.
    """
    config = config or LinearConfig()
    mean, std = _statistics(train.x)
    x = (train.x - mean) / std
    held = (validation.x - mean) / std
    size = min(config.batch_size, len(x))
    rates = torch.tensor(config.learning_rates, device=x.device) * size / 256
    generator = torch.Generator().manual_seed(seed)
    weight = 0.01 * torch.randn((len(rates), x.shape[1], num_classes), generator=generator)
    weight, bias = weight.to(x.device), torch.zeros(len(rates), 1, num_classes, device=x.device)
    order = torch.randint(len(x), (config.num_steps, size), generator=generator).to(x.device)
    places = torch.arange(size, device=x.device)
    slow = [torch.zeros_like(weight), torch.zeros_like(bias)]  # momentum
    for step in range(config.num_steps):
        seen, target = x[order[step]], train.y[order[step]]
        # The gradient of the cross-entropy by hand: heads share the batch and nothing else.
        error = (seen @ weight + bias).softmax(-1)  # (G, B, C)
        error[:, places, target] -= 1
        gradients = (seen.T @ error / size, error.mean(1, keepdim=True))
        factor = 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        for parameter, gradient, momentum in zip((weight, bias), gradients, slow, strict=True):
            momentum.mul_(0.9).add_(gradient)
            parameter.sub_(rates[:, None, None] * factor * momentum)
    right = ((held @ weight + bias).argmax(-1) == validation.y).float().mean(1)  # (G,)
    best = int(right.nan_to_num(0).argmax())
    return Classifier(weight[best], bias[best, 0], mean, std, config.learning_rates[best])


def fit_logistic(
    train: Features, validation: Features, num_classes: int, config: LogisticConfig | None = None
) -> Classifier:
    """Logistic regression whose penalty is chosen on the validation set."""
    config = config or LogisticConfig()
    mean, std = _statistics(train.x)
    x, held = (train.x - mean) / std, (validation.x - mean) / std
    weight = torch.zeros(x.shape[1], num_classes, device=x.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=x.device, requires_grad=True)
    best: tuple[float, Classifier] | None = None
    for strength in torch.logspace(-6, 5, config.num_strengths).tolist():
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=config.max_iterations, line_search_fn="strong_wolfe"
        )

        def closure(penalty: float = 0.5 / (strength * len(x)), solver=optimizer) -> Tensor:
            solver.zero_grad()
            loss = functional.cross_entropy(x @ weight + bias, train.y)
            loss = loss + penalty * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        found = accuracy((held @ weight + bias).detach(), validation.y)
        if best is None or found > best[0]:
            kept = Classifier(weight.detach().clone(), bias.detach().clone(), mean, std, strength)
            best = (found, kept)
    assert best is not None
    return best[1]


def knn_accuracy(
    train: Features,
    validation: Features,
    test: Features,
    num_classes: int,
    config: KnnConfig | None = None,
) -> tuple[float, int]:
    """Accuracy of neighbours voting on the test set, and the number that validation chose."""
    config = config or KnnConfig()
    counts = [k for k in config.counts if k <= len(train.x)] or [len(train.x)]
    held = [_vote(train, validation.x, k, num_classes, config.temperature) for k in counts]
    right = [accuracy(votes, validation.y) for votes in held]
    best = counts[right.index(max(right))]
    return accuracy(_vote(train, test.x, best, num_classes, config.temperature), test.y), best


def _vote(train: Features, x: Tensor, count: int, num_classes: int, temperature: float) -> Tensor:
    """``exp(cosine / T)`` summed over the nearest of each class: ``(N, C)``."""
    # Without their common mean, features of one network are not all alike.
    mean = train.x.mean(0)
    keys = functional.normalize(train.x - mean, dim=-1)
    votes: list[Tensor] = []
    for chunk in (x - mean).split(1024):
        near = (functional.normalize(chunk, dim=-1) @ keys.T).topk(count, dim=-1)
        weights = (near.values / temperature).exp()
        empty = torch.zeros(len(chunk), num_classes, device=x.device)
        votes.append(empty.scatter_add(1, train.y[near.indices], weights))
    return torch.cat(votes)


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.mean(0), x.std(0).clamp(min=1e-5)
