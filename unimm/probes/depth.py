"""Depth from frozen maps: linear and DPT heads with bins, beside all controls.

DINOv2's protocol (Oquab et al., 2023): bins, scale-invariant log loss, AbsRel, RMSE, delta1. The
timestep is chosen on the validation set. Legend: ``N`` pictures, ``H W`` their size.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unimm.data.labelled.sets import LabelledPictures
from unimm.metrics.depth import affine_align, depth_errors
from unimm.probes.dense import (
    OneCycleConfig,
    build_head,
    predict_dense,
    train_dense,
    upsample,
)
from unimm.probes.dense_heads import DenseHeadConfig
from unimm.probes.depth_loss import (
    Mixture,
    Spacing,
    bin_centres,
    depth_of_bins,
    gradient_loss,
    silog,
)
from unimm.probes.plots import depth_picture, picture_rows, to_array
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.spec import FeatureSpec
from unimm.probes.supervised import SupervisedConfig, train_supervised

_WARM_STEPS = 100
_NUM_SHOWN = 6
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DepthConfig(ProbeConfig):
    """Depth.

    Attributes:
        source: of the features.
        layers: that the head reads; empty is four, evenly spaced.
        timesteps: that are compared on the validation set.
        num_noises: that features are averaged over.
        head: its form.
        train: its training.
        num_bins: of depth.
        spacing: of the bins.
        mixture: how logits become weights of the bins.
        gradient_weight: of the loss on edges.
        supervised: the ceiling.
    """

    name: ClassVar[str] = "depth"

    source: str = "denoiser"
    layers: tuple[int, ...] = ()
    timesteps: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4)
    num_noises: int = 4
    head: DenseHeadConfig = field(default_factory=DenseHeadConfig)
    train: OneCycleConfig = field(default_factory=OneCycleConfig)
    num_bins: int = 256
    spacing: Spacing = "uniform"
    mixture: Mixture = "relu"
    gradient_weight: float = 0.5
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def run(self, bench: Bench) -> ProbeResult:
        """Choose a timestep, score it, then the controls with the same head and budget."""
        by_time: dict[str, float] = {}
        heads: dict[float, nn.Module] = {}
        for t in self._times(bench, self.source):
            spec = self._spec(self.source, t)
            heads[t] = self._fit(bench, spec)
            row = self._score(bench, heads[t], spec, bench.data.validation)
            by_time[f"{t:g}"] = row["AbsRel"]
            bench.tell(f"timestep {t:g}: AbsRel {row['AbsRel']:.4f} on the validation set")
        best = min(heads, key=lambda t: by_time[f"{t:g}"])
        spec = self._spec(self.source, best)
        table = {"features": self._score(bench, heads[best], spec, bench.data.test)}
        shown = [("features", self._show(bench, heads[best], spec))]
        for name, other, source in self._rivals(bench):
            rival = self._spec(source, best)
            fitted = self._fit(other, rival)
            table[name] = self._score(other, fitted, rival, other.data.test)
            if name == "random network":
                shown.append((name, self._show(other, fitted, rival)))
            bench.tell(f"{name}: AbsRel {table[name]['AbsRel']:.4f}")
        if self.supervised.num_steps:
            once = replace(spec, num_noises=1)  # it was never shown an average of noises
            trained, fitted = self._supervised(bench, once)
            ceiling = self._score(trained, fitted, once, bench.data.test)
            table["supervised, same network"] = ceiling
        test = bench.data.test
        table |= {name: depth_row(test, [x]) for name, x in trivial_depth(bench).items()}
        times = list(heads)
        return ProbeResult(
            table=table,
            controls=tuple(name for name in table if name != "features"),
            figures={
                "AbsRel by timestep": by_time,
                "timestep": best,
                "best timestep inside the grid": best not in (times[0], times[-1]),
                "layers": list(self._layers(bench, self.source)),
                "test pictures": len(bench.data.test),
            },
            pictures={"depth": self._plot(bench, shown)},
        )

    def _times(self, bench: Bench, source: str) -> tuple[float, ...]:
        return self.timesteps if bench.model.source(source).is_noisy else self.timesteps[:1]

    def _layers(self, bench: Bench, source: str) -> tuple[int, ...]:
        count = bench.model.source(source).num_layers
        if self.layers and source == self.source:
            return self.layers
        return tuple(sorted({round((i + 1) * count / 4) - 1 for i in range(4)} - {-1}))

    def _spec(self, source: str, timestep: float) -> FeatureSpec:
        return FeatureSpec(source=source, timestep=timestep, num_noises=self.num_noises)

    def _rivals(self, bench: Bench) -> list[tuple[str, Bench, str]]:
        rivals = [("random network", bench.at_random(self.source), self.source)]
        if self.source != "encoder" and "encoder" in bench.model.sources:
            rivals.append(("image tokenizer's encoder", bench, "encoder"))
        return [*rivals, ("raw pixels", bench, "pixels")]

    def _maps(self, bench: Bench, pixels: Tensor, spec: FeatureSpec) -> list[Tensor]:
        return bench.features(pixels, spec, self._layers(bench, spec.source))

    def _fit(self, bench: Bench, spec: FeatureSpec) -> nn.Module:
        part = bench.data.train
        maps = self._maps(bench, part.pixels, spec)
        head = self._head(bench, [x.shape[1] for x in maps])
        train_dense(bench, head, maps, self._loss(bench), self.train)
        return head

    def _head(self, bench: Bench, widths: list[int]) -> nn.Module:
        return build_head(lambda: self.head.build(widths, self.num_bins), bench)

    def _depth(self, bench: Bench, output: Tensor) -> Tensor:
        """A head's output ``(B, K, h, w)`` as depth ``(B, H, W)`` of the truth's size."""
        low, high = bench.data.depth_range
        centres = bin_centres(low, high, self.num_bins, self.spacing).to(output.device)
        depth = depth_of_bins(output, centres, self.mixture)[:, None]
        return upsample(depth, _size(bench.data.train))[:, 0]

    def _loss(self, bench: Bench) -> Callable[[Tensor, Tensor, int], Tensor]:
        part = bench.data.train
        truth, known = part.need("depth"), part.need("has_depth")

        def loss(output: Tensor, rows: Tensor, step: int) -> Tensor:
            depth = self._depth(bench, output)
            target, mask = truth[rows].to(depth.device), known[rows].to(depth.device)
            cost = silog(depth, target, mask, is_warm=step >= _WARM_STEPS)
            return cost + self.gradient_weight * gradient_loss(depth, target, mask)

        return loss

    @torch.no_grad()
    def _score(
        self, bench: Bench, head: nn.Module, spec: FeatureSpec, part: LabelledPictures
    ) -> Row:
        maps = self._maps(bench, part.pixels, spec)
        outputs = predict_dense(bench, head, maps)
        return depth_row(part, [self._depth(bench, x).cpu() for x in outputs])

    def _supervised(self, bench: Bench, spec: FeatureSpec) -> tuple[Bench, nn.Module]:
        layers = self._layers(bench, spec.source)
        few = bench.data.train.pixels[:1]
        head = self._head(bench, [x.shape[1] for x in self._maps(bench, few, spec)])
        step_loss = self._loss(bench)
        steps = iter(range(self.supervised.num_steps))

        def loss(head: nn.Module, maps: list[Tensor], rows: Tensor) -> Tensor:
            return step_loss(head(maps), rows, next(steps))

        trained = train_supervised(bench, spec, layers, head, loss, self.supervised)
        return trained, head.eval()

    def _show(self, bench: Bench, head: nn.Module, spec: FeatureSpec) -> list[Any]:
        part = bench.data.test
        maps = self._maps(bench, part.pixels, spec)
        few = [x[:_NUM_SHOWN] for x in maps]
        (output,) = predict_dense(bench, head, few)
        low, high = bench.data.depth_range
        return [depth_picture(x, low, high) for x in self._depth(bench, output)]

    def _plot(self, bench: Bench, shown: list[tuple[str, list[Any]]]) -> Any:
        part, (low, high) = bench.data.test, bench.data.depth_range
        pictures = [to_array(x) for x in part.pixels[:_NUM_SHOWN]]
        truth = [depth_picture(x, low, high) for x in part.need("depth")[:_NUM_SHOWN]]
        return picture_rows([("picture", pictures), ("truth", truth), *shown])


def depth_row(part: LabelledPictures, predicted: list[Tensor]) -> Row:
    """Mean errors of predictions ``(B, H, W)`` in the order of the set, as they are and aligned."""
    sums: dict[str, float] = {}
    start = 0
    for depth in predicted:
        rows = slice(start, start + len(depth))
        target, mask = part.need("depth")[rows], part.need("has_depth")[rows]
        found = depth_errors(depth, target, mask)
        aligned = depth_errors(affine_align(depth, target, mask), target, mask)
        named = {"AbsRel": found["abs_rel"], "RMSE": found["rmse"], "delta1": found["delta1"]}
        named |= {"AbsRel, aligned": aligned["abs_rel"], "delta1, aligned": aligned["delta1"]}
        for name, values in named.items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
        start += len(depth)
    return {name: round(total / start, 4) for name, total in sums.items()}


def trivial_depth(bench: Bench) -> dict[str, Tensor]:
    """What needs no picture: the mean depth of each place, and one depth for all.

    Returns:
        name -> ``(N, H, W)`` for the test pictures.
    """
    part, test = bench.data.train, bench.data.test
    depth, mask = part.need("depth"), part.need("has_depth")
    # The geometric mean: what the logarithmic loss would choose.
    logs = torch.where(mask, depth, 1.0).log()
    constant = float((logs.sum() / mask.sum()).exp())
    counts = mask.sum(0)
    mean = torch.where(counts > 0, logs.sum(0) / counts.clamp(min=1), logs.sum() / mask.sum())
    shape = test.need("depth").shape
    return {
        "mean depth map": mean.exp().expand(shape),
        "constant depth": torch.full(shape, constant),
    }


def _size(part: LabelledPictures) -> tuple[int, int]:
    height, width = part.need("depth").shape[1:]
    return height, width
