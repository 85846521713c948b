"""The ceiling: the probed network from scratch, trained end to end on the probe's own labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unimm.probes.features import prepare_all
from unimm.probes.probe import Bench
from unimm.probes.spec import FeatureSpec, resolve_layers


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Training of the supervised control.

    Attributes:
        num_steps: 0 leaves the control out.
        batch_size: pictures a step.
        learning_rate: of AdamW, with warm-up and a cosine.
        weight_decay: of AdamW.
    """

    num_steps: int = 3000
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05


def train_supervised(
    bench: Bench,
    spec: FeatureSpec,
    layers: tuple[int, ...],
    head: nn.Module,
    loss: Callable[[nn.Module, list[Tensor], Tensor], Tensor],
    config: SupervisedConfig,
) -> "Bench":
    """Train a network with fresh weights and a head together.

    Args:
        bench: whose network's sizes are taken.
        spec: how pictures are shown to it.
        layers: what the head reads.
        head: on the maps of the layers.
        loss: ``(head, maps, rows)`` of training pictures ``rows`` to a scalar.
        config: of the training.

    Returns:
        A bench with the trained network; ``head`` is trained in place.
    """
    from rich.progress import track

    fresh = bench.at_random(spec.source)
    source = fresh.model.source(spec.source)
    numbers = resolve_layers(source, layers)
    source.network.requires_grad_(True).train()
    parameters = [*source.network.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.98),
        fused=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.num_steps, pct_start=0.05
    )
    generator = torch.Generator().manual_seed(bench.seed)
    shown = prepare_all(fresh.model, spec.source, bench.data.train.pixels)
    order = torch.randint(len(shown), (config.num_steps, config.batch_size), generator=generator)
    order = order.to(shown.device)
    steps = range(config.num_steps)
    for step in track(steps, description="supervised", disable=not bench.cache.show_progress):
        rows = order[step]
        # Another noise at every step: the network must not learn one by heart.
        seed = int(torch.randint(2**31, (), generator=generator))
        noisy = replace(spec, noise_seed=seed)
        maps = source(shown[rows], noisy, numbers)
        cost = loss(head, [x.float() for x in maps], rows)
        optimizer.zero_grad()
        cost.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
    source.network.requires_grad_(False).eval()
    return fresh
