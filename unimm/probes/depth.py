"""Depth from frozen maps: linear and DPT heads with bins, beside all controls.

DINOv2's protocol (Oquab et al., 2023): bins, scale-invariant log loss, AbsRel, RMSE, delta1.
Timesteps are chosen on the validation set. Legend: ``N`` pictures, ``H W`` their size.
"""

from collections.abc import Callable, Sequence
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

_WARM_STEPS = 20  # longer, and a head that learns only the mean ends in one bin for good
_NUM_SHOWN = 6
Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class DepthConfig(ProbeConfig):
    """Depth.

    Attributes:
        source: of the features.
        layers: that the head reads; empty is four, evenly spaced.
        timesteps: that are compared on the validation set.
        num_joined: timesteps, the best ones, whose features the reported head reads side by side.
        num_noises: that features are averaged over.
        head: its form.
        choice: training of the heads that compare timesteps.
        train: of the head that is reported, and of the controls'.
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
    num_joined: int = 1
    num_noises: int = 4
    head: DenseHeadConfig = field(default_factory=DenseHeadConfig)
    choice: OneCycleConfig = field(default_factory=lambda: OneCycleConfig(num_steps=500))
    train: OneCycleConfig = field(default_factory=OneCycleConfig)
    num_bins: int = 256
    spacing: Spacing = "uniform"
    mixture: Mixture = "relu"
    gradient_weight: float = 0.5
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def run(self, bench: Bench) -> ProbeResult:
        """Choose timesteps, score them, then the controls with the same head and budget."""
        by_time = self._compare(bench)
        ranked = sorted(by_time, key=lambda t: by_time[t])
        test = bench.data.test
        table: dict[str, Row] = {}
        shown: list[tuple[str, list[Any]]] = []
        for name, other, source in [("features", bench, self.source), *self._rivals(bench)]:
            count = self.num_joined if other.model.source(source).is_noisy else 1
            specs = [self._spec(source, t) for t in sorted(ranked[:count])]
            fitted = self._fit(other, specs, self.train)
            table[name] = self._score(other, fitted, specs, test)
            if name in ("features", "random network"):
                shown.append((name, self._show(other, fitted, specs)))
            bench.tell(f"{name}: {table[name]}")
        if self.supervised.num_steps:
            # It was never shown an average of noises.
            once = replace(self._spec(self.source, ranked[0]), num_noises=1)
            trained, fitted = self._supervised(bench, once)
            table["supervised, same network"] = self._score(trained, fitted, [once], test)
            bench.tell(f"supervised: {table['supervised, same network']}")
        table |= {name: depth_row(test, [x]) for name, x in trivial_depth(bench).items()}
        times = list(by_time)
        return ProbeResult(
            table=table,
            controls=tuple(name for name in table if name != "features"),
            score="AbsRel",
            is_error=True,
            ceilings=("supervised, same network",),
            figures={
                "AbsRel by timestep": {f"{t:g}": value for t, value in by_time.items()},
                "timesteps": sorted(ranked[: self.num_joined]),
                "best timestep inside the grid": ranked[0] not in (times[0], times[-1]),
                "layers": list(self._layers(bench, self.source)),
                "test pictures": len(bench.data.test),
            },
            pictures={"depth": self._plot(bench, shown)},
        )

    def _compare(self, bench: Bench) -> dict[float, float]:
        """AbsRel on the validation set of each timestep."""
        is_noisy = bench.model.source(self.source).is_noisy
        found: dict[float, float] = {}
        for t in self.timesteps if is_noisy else self.timesteps[:1]:
            specs = [self._spec(self.source, t)]
            head = self._fit(bench, specs, self.choice)
            found[t] = self._score(bench, head, specs, bench.data.validation)["AbsRel"]
            bench.tell(f"timestep {t:g}: AbsRel {found[t]:.4f} on the validation set")
        return found

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

    def _maps(self, bench: Bench, pixels: Tensor, specs: Sequence[FeatureSpec]) -> list[Tensor]:
        """A map a layer; those of several timesteps side by side."""
        layers = self._layers(bench, specs[0].source)
        by_time = [bench.features(pixels, spec, layers) for spec in specs]
        if len(by_time) == 1:
            return by_time[0]
        return [torch.cat(maps, dim=1) for maps in zip(*by_time, strict=True)]

    def _fit(self, bench: Bench, specs: Sequence[FeatureSpec], config: OneCycleConfig) -> nn.Module:
        maps = self._maps(bench, bench.data.train.pixels, specs)
        head = self._head(bench, [x.shape[1] for x in maps])
        train_dense(bench, head, maps, self._loss(bench), config)
        return head

    def _head(self, bench: Bench, widths: list[int]) -> nn.Module:
        return build_head(lambda: self.head.build(widths, self.num_bins), bench)

    def _depth(self, bench: Bench, output: Tensor) -> Tensor:
        """A head's output ``(B, K, h, w)`` as depth ``(B, H, W)`` of the truth's size."""
        low, high = bench.data.depth_range
        centres = bin_centres(low, high, self.num_bins, self.spacing, output.device)
        depth = depth_of_bins(output, centres, self.mixture)[:, None]
        return upsample(depth, _size(bench.data.train))[:, 0]

    def _loss(self, bench: Bench) -> Callable[[Tensor, Tensor, int], Tensor]:
        part = bench.data.train
        truth, known = (part.need(x).to(bench.device) for x in ("depth", "has_depth"))

        def loss(output: Tensor, rows: Tensor, step: int) -> Tensor:
            depth = self._depth(bench, output)
            target, mask = (x[rows.to(bench.device)] for x in (truth, known))
            cost = silog(depth, target, mask, is_warm=step >= _WARM_STEPS)
            return cost + self.gradient_weight * gradient_loss(depth, target, mask)

        return loss

    @torch.no_grad()
    def _score(
        self,
        bench: Bench,
        head: nn.Module,
        specs: Sequence[FeatureSpec],
        part: LabelledPictures,
    ) -> Row:
        maps = self._maps(bench, part.pixels, specs)
        outputs = predict_dense(bench, head, maps)
        return depth_row(part, [self._depth(bench, x).cpu() for x in outputs])

    def _supervised(self, bench: Bench, spec: FeatureSpec) -> tuple[Bench, nn.Module]:
        layers = self._layers(bench, spec.source)
        few = bench.data.train.pixels[:1]
        head = self._head(bench, [x.shape[1] for x in self._maps(bench, few, [spec])])
        step_loss = self._loss(bench)
        steps = iter(range(self.supervised.num_steps))

        def loss(head: nn.Module, maps: list[Tensor], rows: Tensor) -> Tensor:
            return step_loss(head(maps), rows, next(steps))

        trained = train_supervised(bench, spec, layers, head, loss, self.supervised)
        return trained, head.eval()

    @torch.no_grad()
    def _show(self, bench: Bench, head: nn.Module, specs: Sequence[FeatureSpec]) -> list[Any]:
        maps = self._maps(bench, bench.data.test.pixels[:_NUM_SHOWN], specs)
        (output,) = predict_dense(bench, head, maps)
        low, high = bench.data.depth_range
        depth = self._depth(bench, output)
        # Nobody taught the head, or judges it, where there is no depth: the sky is shown as far.
        there = bench.data.test.need("has_depth")[:_NUM_SHOWN].to(depth.device)
        return [depth_picture(x, low, high) for x in torch.where(there, depth, high)]

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
