"""Hyperfeatures: all layers and timesteps mixed into one map, learned from few keypoint pairs.

One small bottleneck a layer, shared over timesteps, and one softmax weight for each layer and
timestep (Luo et al., 2023). Legend: ``P`` pairs, ``K`` points, ``D`` width of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.data.labelled.sets import LabelledPictures
from unimm.probes.correspond import CorrespondConfig, features_at, score_maps
from unimm.probes.dense import build_head
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.spec import FeatureSpec

_TEMPERATURE = 0.07


@dataclass(frozen=True, kw_only=True)
class HyperfeaturesConfig(ProbeConfig):
    """Aggregated correspondence.

    Attributes:
        single: the untrained probe, whose layers and timesteps are mixed and whose controls are
            shown.
        width: of the mixed map.
        num_steps: of AdamW.
        batch_size: pairs a step.
        learning_rate: of AdamW.
    """

    name: ClassVar[str] = "hyperfeatures"

    single: CorrespondConfig = field(default_factory=CorrespondConfig)
    width: int = 192
    num_steps: int = 1000
    batch_size: int = 16
    learning_rate: float = 1e-3

    def run(self, bench: Bench) -> ProbeResult:
        """Mix, and compare with the best single map and with a random network mixed alike."""
        single = self.single.run(bench)
        mixed, weights = self._score(bench)
        random, _ = self._score(bench.at_random(self.single.source))
        table: dict[str, dict[str, Any]] = {"features": mixed, "random network, mixed": random}
        table |= {f"{name}, single map": row for name, row in single.table.items()}
        controls = [f"{name}, single map" for name in single.table]
        return ProbeResult(
            table=table,
            controls=("random network, mixed", *controls),
            score="per point",
            figures={"weights": weights, **single.figures},
            pictures=single.pictures,
        )

    def _score(self, bench: Bench) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Train on the training pairs, score the test pairs; and the weights of layers, times."""
        train, maps = bench.data.train, self._maps(bench, bench.data.train)
        mixer = build_head(
            lambda: Mixer([x[0].shape[1] for x in maps], len(maps[0]), self.width), bench
        )
        assert isinstance(mixer, Mixer)
        optimizer = torch.optim.AdamW(mixer.parameters(), lr=self.learning_rate, fused=True)
        generator = torch.Generator().manual_seed(bench.seed)
        pairs = train.need("pairs")
        for _ in range(self.num_steps):
            rows = pairs[torch.randint(len(pairs), (self.batch_size,), generator=generator)]
            cost = self._loss(mixer, maps, train, rows, bench.device)
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
        test, tested = bench.data.test, self._maps(bench, bench.data.test)
        with torch.no_grad():
            mixed = [
                mixer(_take(tested, rows, bench.device)).half()
                for rows in torch.arange(len(test)).split(64)
            ]
        scores = score_maps(bench, test, torch.cat(mixed), self.single.alpha)
        found = {name: round(value, 4) for name, value in scores.items()}
        bench.tell(f"{bench.model.name}, mixed: PCK {found['per point']:.3f}")
        return found, mixer.shares(self.single.timesteps)

    def _maps(self, bench: Bench, part: LabelledPictures) -> list[list[Tensor]]:
        """Features of all cells: layer by layer, each at all timesteps."""
        source = self.single.source
        count = bench.model.source(source).num_layers
        layers = self.single.layers or tuple(range(count))
        by_time = [
            bench.features(
                part.pixels,
                FeatureSpec(source=source, timestep=t, num_noises=self.single.num_noises),
                layers,
            )
            for t in self.single.timesteps
        ]
        return [[maps[i] for maps in by_time] for i in range(len(layers))]

    def _loss(
        self,
        mixer: "Mixer",
        maps: list[list[Tensor]],
        part: LabelledPictures,
        rows: Tensor,
        device: torch.device,
    ) -> Tensor:
        """Each seen point must find its own among the other picture's points, both ways."""
        side = part.pixels.shape[-1]
        points, seen = part.need("keypoints"), part.need("is_visible")
        first, second = (
            features_at(mixer(_take(maps, i, device)), points[i].to(device), side)
            for i in rows.unbind(1)
        )
        known = (seen[rows[:, 0]] & seen[rows[:, 1]]).to(device)  # (P, K)
        logits = torch.einsum("pdk,pdn->pkn", first, second) / _TEMPERATURE
        logits = logits.masked_fill(~known[:, None, :] & ~known[:, :, None], -1e4)
        target = torch.arange(known.shape[1], device=device).expand_as(known)
        both = (
            functional.cross_entropy(x.transpose(1, 2), target, reduction="none")
            for x in (logits, logits.transpose(1, 2))
        )
        return sum((cost * known).sum() for cost in both) / known.sum().clamp(min=1)


class Mixer(nn.Module):
    """Bottlenecks and mixing weights.

    Args:
        widths: of the layers.
        num_times: timesteps of each.
        width: of the result.
    """

    def __init__(self, widths: Sequence[int], num_times: int, width: int) -> None:
        super().__init__()
        self.inputs = nn.ModuleList(nn.Conv2d(d, width, 1) for d in widths)
        self.refines = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width // 4, 1),
                nn.GELU(),
                nn.Conv2d(width // 4, width // 4, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width // 4, width, 1),
            )
            for _ in widths
        )
        self.weights = nn.Parameter(torch.zeros(len(widths), num_times))

    def forward(self, maps: Sequence[Sequence[Tensor]]) -> Tensor:
        """Maps ``(P, D, h, w)`` of each layer and timestep to ``(P, width, h, w)``."""
        shares = self.weights.flatten().softmax(0).view_as(self.weights)
        size = max(x[0].shape[2:] for x in maps)
        total: Tensor | None = None
        for i, by_time in enumerate(maps):
            for j, x in enumerate(by_time):
                # Layers and times differ in scale; directions are what is compared.
                seen = self.inputs[i](functional.normalize(x, dim=1) * x.shape[1] ** 0.5)
                seen = seen + self.refines[i](seen)
                if seen.shape[2:] != size:
                    seen = functional.interpolate(seen, size=size, mode="bilinear")
                total = shares[i, j] * seen + (0 if total is None else total)
        assert total is not None
        return total

    def shares(self, times: Sequence[float]) -> dict[str, dict[str, float]]:
        """The weights: layer -> timestep -> share."""
        shares = self.weights.detach().flatten().softmax(0).view_as(self.weights).cpu()
        return {
            f"layer {i}": {f"{t:g}": round(float(x), 4) for t, x in zip(times, row, strict=True)}
            for i, row in enumerate(shares)
        }


def _take(maps: list[list[Tensor]], rows: Tensor, device: torch.device) -> list[list[Tensor]]:
    rows = rows.to(maps[0][0].device)
    return [[x[rows].to(device).float() for x in by_time] for by_time in maps]
