"""Train a dense head on cached maps, and run it over a set.

Legend: ``N`` pictures of a set, ``B`` of a batch, ``D h w`` maps, ``H W`` size of the truth.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.probes.probe import Bench

Loss = Callable[[Tensor, Tensor, int], Tensor]
"""``(output (B, O, h, w), rows (B,), step)`` to a scalar."""


@dataclass(frozen=True, kw_only=True)
class OneCycleConfig:
    """AdamW with a one-cycle schedule.

    Attributes:
        num_steps: of AdamW.
        batch_size: pictures a step.
        learning_rate: at its height; a one-cycle schedule.
        weight_decay: of AdamW.
    """

    num_steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


def build_head(build: Callable[[], nn.Module], bench: Bench) -> nn.Module:
    """A head whose first weights follow from the bench's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(bench.seed)
        return build().to(bench.device)


def train_dense(
    bench: Bench,
    head: nn.Module,
    maps: Sequence[Tensor],
    loss: Loss,
    config: OneCycleConfig,
) -> None:
    """Train a head in place.

    Args:
        bench: device and seed.
        head: on maps.
        maps: ``(N, D, h, w)`` of the training pictures, one a layer, on any device.
        loss: what is minimised.
        config: of the training.
    """
    from rich.progress import track

    optimizer = torch.optim.AdamW(
        head.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=0.1
    )
    generator = torch.Generator().manual_seed(bench.seed)
    order = torch.randint(len(maps[0]), (config.num_steps, config.batch_size), generator=generator)
    order = order.to(maps[0].device)
    head.train()
    steps = range(config.num_steps)
    for step in track(steps, description="head", disable=not bench.cache.show_progress):
        rows = order[step]
        cost = loss(head([x[rows].to(bench.device).float() for x in maps]), rows, step)
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    head.eval()


@torch.no_grad()
def predict_dense(
    bench: Bench, head: nn.Module, maps: Sequence[Tensor], *, batch_size: int = 64
) -> Iterator[Tensor]:
    """What a head gives for a set, in batches ``(B, O, h, w)`` in its order."""
    head.eval()
    for start in range(0, len(maps[0]), batch_size):
        rows = slice(start, start + batch_size)
        yield head([x[rows].to(bench.device).float() for x in maps])


def upsample(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, to the truth's size."""
    return functional.interpolate(output, size=size, mode="bilinear")
