"""Classes from pooled features: a layer x timestep grid, then linear, kNN and logistic heads.

After DDAE (Xiang et al., 2023) and DINOv2's protocol: cells are compared on the validation set, and
the best one is scored once on the test set.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from unimm.probes.plots import heat_map
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.spec import FeatureSpec
from unimm.probes.supervised import SupervisedConfig, train_supervised

_PIXEL_SIDE = 32  # of the raw-pixel control, which is not pooled


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(ProbeConfig):
    """Classification.

    Attributes:
        source: of the features.
        layers: of the grid; empty is all.
        timesteps: of the grid, shares of noise; one for sources without noise.
        condition: text beside the picture.
        grid: of the heads that compare cells.
        linear: of the head that is reported.
        knn: likewise.
        logistic: likewise.
        supervised: the ceiling.
    """

    name: ClassVar[str] = "classify"

    source: str = "denoiser"
    layers: tuple[int, ...] = ()
    timesteps: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.4)
    condition: str = ""
    grid: LinearConfig = field(default_factory=lambda: LinearConfig(num_steps=1500))
    linear: LinearConfig = field(default_factory=LinearConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    logistic: LogisticConfig = field(default_factory=LogisticConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def run(self, bench: Bench) -> ProbeResult:
        """Compare cells, score the best, then the controls."""
        cell = self._best_cell(bench, self.source)
        table = {"features": self._score(bench, cell.spec, cell.layer)}
        for control, other, source in self._rivals(bench):
            rival = self._best_cell(other, source)
            table[control] = self._score(other, rival.spec, rival.layer)
            table[control]["layer"], table[control]["timestep"] = rival.layer, rival.timestep
        table["features"] |= {"layer": cell.layer, "timestep": cell.timestep}
        controls = [name for name in table if name != "features"]
        table["raw pixels"] = self._score_sets(bench, [_pixels(x) for x in _splits(bench)])
        if self.supervised.num_steps:
            accuracy = self._supervised(bench, cell.spec, cell.layer)
            table["supervised, same network"] = {"linear": accuracy}
            controls.append("supervised, same network")
        table["chance"] = {"linear": _majority(bench)}
        is_inside = _is_inside(cell)
        figures: dict[str, Any] = {
            "grid": cell.rows,
            "best cell inside the grid": is_inside,
            "classes": len(bench.data.classes),
            "test pictures": len(bench.data.test),
        }
        bench.tell(f"best: layer {cell.layer}, timestep {cell.timestep:g}, inside: {is_inside}")
        plot = heat_map(
            [list(row.values()) for row in cell.rows.values()],
            rows=[f"layer {name}" for name in cell.rows],
            columns=[f"t {t:g}" for t in cell.timesteps],
            title=f"Linear probe, % right: {bench.data.name}",
        )
        return ProbeResult(
            table=table,
            controls=(*controls, "raw pixels", "chance"),
            score="linear",
            ceilings=("supervised, same network",),
            figures=figures,
            pictures={"grid": plot},
        )

    def _rivals(self, bench: Bench) -> list[tuple[str, Bench, str]]:
        """Controls that are networks, each given the layer and time that suit it best."""
        rivals = [("random network", bench.at_random(self.source), self.source)]
        if self.source != "encoder" and "encoder" in bench.model.sources:
            rivals.append(("image tokenizer's encoder", bench, "encoder"))
        return rivals

    def _best_cell(self, bench: Bench, source: str) -> "_Cell":
        """Fit a head to every cell and compare on the validation set."""
        network = bench.model.source(source)
        is_probed = source == self.source
        layers = self.layers if is_probed and self.layers else tuple(range(network.num_layers))
        times = self.timesteps if network.is_noisy else self.timesteps[:1]
        rows: dict[str, dict[str, float]] = {str(layer): {} for layer in layers}
        best, found = (layers[0], times[0]), -1.0
        for t in times:
            spec = self._spec(source, t)
            sets = [_pooled(bench, part.pixels, spec, layers) for part in _splits(bench)[:2]]
            for i, layer in enumerate(layers):
                train, held = (
                    Features(maps[i], _labels(bench, part))
                    for maps, part in zip(sets, _splits(bench)[:2], strict=True)
                )
                fitted = fit_linear(
                    train, held, len(bench.data.classes), self.grid, seed=bench.seed
                )
                right = accuracy(fitted.logits(held.x), held.y)
                rows[str(layer)][f"{t:g}"] = round(right, 4)
                if right > found:
                    best, found = (layer, t), right
        bench.tell(f"{bench.model.name}, {source}: {found:.3f} on the validation set")
        layer, t = best
        return _Cell(self._spec(source, t), layer, t, rows, times, layers)

    def _spec(self, source: str, timestep: float) -> FeatureSpec:
        return FeatureSpec(source=source, timestep=timestep, condition=self.condition, pool="mean")

    def _score(self, bench: Bench, spec: FeatureSpec, layer: int) -> dict[str, Any]:
        return self._score_sets(
            bench, [_pooled(bench, part.pixels, spec, (layer,))[0] for part in _splits(bench)]
        )

    def _score_sets(self, bench: Bench, sets: list[Tensor]) -> dict[str, Any]:
        """Fit all heads and score them on the test set."""
        train, held, test = (
            Features(x.to(bench.device), _labels(bench, part))
            for x, part in zip(sets, _splits(bench), strict=True)
        )
        count = len(bench.data.classes)
        linear = fit_linear(train, held, count, self.linear, seed=bench.seed)
        logistic = fit_logistic(train, held, count, self.logistic)
        knn, _ = knn_accuracy(train, held, test, count, self.knn)
        return {
            "linear": round(accuracy(linear.logits(test.x), test.y), 4),
            "kNN": round(knn, 4),
            "logistic": round(accuracy(logistic.logits(test.x), test.y), 4),
        }

    def _supervised(self, bench: Bench, spec: FeatureSpec, layer: int) -> float:
        """Accuracy on the test set of the network trained on the labels."""
        labels = _labels(bench, bench.data.train)
        width = _pooled(bench, bench.data.train.pixels[:1], spec, (layer,))[0].shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(bench.seed)
            head = nn.Linear(width, len(bench.data.classes)).to(bench.device)

        def loss(head: nn.Module, maps: list[Tensor], rows: Tensor) -> Tensor:
            return functional.cross_entropy(
                head(maps[0].mean((2, 3))), labels[rows.to(labels.device)]
            )

        trained = train_supervised(bench, spec, (layer,), head, loss, self.supervised)
        test = bench.data.test
        pooled = _pooled(trained, test.pixels, spec, (layer,))[0]
        with torch.no_grad():
            return round(accuracy(head(pooled.to(bench.device)), _labels(bench, test)), 4)


class _Cell(NamedTuple):
    """The best of a grid, and the grid: layer -> timestep -> accuracy."""

    spec: FeatureSpec
    layer: int
    timestep: float
    rows: dict[str, dict[str, float]]
    timesteps: tuple[float, ...]
    layers: tuple[int, ...]


def _is_inside(cell: _Cell) -> bool:
    """Whether the best timestep is neither the first nor the last that was tried."""
    return len(cell.timesteps) > 2 and cell.timestep not in (cell.timesteps[0], cell.timesteps[-1])


def _splits(bench: Bench) -> list:
    return [bench.data.train, bench.data.validation, bench.data.test]


def _pooled(
    bench: Bench, pixels: Tensor, spec: FeatureSpec, layers: tuple[int, ...]
) -> list[Tensor]:
    """``(N, D)`` float32 on the bench's device, one a layer."""
    maps = bench.features(pixels, replace(spec, pool="mean"), layers)
    return [x.flatten(1).float().to(bench.device) for x in maps]


def _pixels(part: Any) -> Tensor:
    """Small pictures, flat: ``(N, D)``."""
    chunks = [
        functional.interpolate(x.float(), size=(_PIXEL_SIDE,) * 2, mode="area").flatten(1)
        for x in part.pixels.split(1024)
    ]
    return torch.cat(chunks) / 127.5 - 1


def _labels(bench: Bench, part: Any) -> Tensor:
    return part.need("labels").to(bench.device)


def _majority(bench: Bench) -> float:
    """What always saying the commonest class of the training set gets right."""
    commonest = bench.data.train.need("labels").mode().values
    return round(float((bench.data.test.need("labels") == commonest).float().mean()), 4)
