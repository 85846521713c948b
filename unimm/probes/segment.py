"""Regions from frozen maps: a linear head, mean IoU, beside all controls.

Legend: ``C`` classes of pixels, ``H W`` size of a picture.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.data.labelled.sets import NO_CLASS, LabelledPictures
from unimm.metrics.segmentation import confusion, mean_iou
from unimm.probes.dense import (
    OneCycleConfig,
    build_head,
    predict_dense,
    train_dense,
    upsample,
)
from unimm.probes.dense_heads import DenseHeadConfig
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult
from unimm.probes.spec import FeatureSpec
from unimm.probes.supervised import SupervisedConfig, train_supervised

Row = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(ProbeConfig):
    """Segmentation.

    Attributes:
        source: of the features.
        layers: that the head reads, negative from the end.
        timesteps: that are compared on the validation set.
        num_noises: that features are averaged over.
        head: its form.
        train: its training.
        supervised: the ceiling.
    """

    name: ClassVar[str] = "segment"

    source: str = "denoiser"
    layers: tuple[int, ...] = (-1,)
    timesteps: tuple[float, ...] = (0.02, 0.1, 0.2, 0.4)
    num_noises: int = 4
    head: DenseHeadConfig = field(default_factory=DenseHeadConfig)
    train: OneCycleConfig = field(default_factory=OneCycleConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)

    def run(self, bench: Bench) -> ProbeResult:
        """Choose a timestep, score it, then the controls with the same head and budget."""
        network = bench.model.source(self.source)
        times = self.timesteps if network.is_noisy else self.timesteps[:1]
        by_time: dict[float, float] = {}
        heads: dict[float, nn.Module] = {}
        for t in times:
            spec = self._spec(self.source, t)
            heads[t] = self._fit(bench, spec)
            by_time[t] = self._score(bench, heads[t], spec, bench.data.validation)["mIoU"]
            bench.tell(f"timestep {t:g}: mIoU {by_time[t]:.3f} on the validation set")
        best = max(by_time, key=lambda t: by_time[t])
        spec = self._spec(self.source, best)
        table = {"features": self._score(bench, heads[best], spec, bench.data.test)}
        rivals = [("random network", bench.at_random(self.source), self.source)]
        if self.source != "encoder" and "encoder" in bench.model.sources:
            rivals.append(("image tokenizer's encoder", bench, "encoder"))
        for name, other, source in [*rivals, ("raw pixels", bench, "pixels")]:
            rival = self._spec(source, best)
            table[name] = self._score(other, self._fit(other, rival), rival, other.data.test)
            bench.tell(f"{name}: mIoU {table[name]['mIoU']:.3f}")
        if self.supervised.num_steps:
            once = replace(spec, num_noises=1)  # it was never shown an average of noises
            trained, head = self._supervised(bench, once)
            ceiling = self._score(trained, head, once, bench.data.test)
            table["supervised, same network"] = ceiling
        table["commonest class everywhere"] = self._commonest(bench)
        return ProbeResult(
            table=table,
            controls=tuple(name for name in table if name != "features"),
            score="mIoU",
            ceilings=("supervised, same network",),
            figures={
                "mIoU by timestep": {f"{t:g}": value for t, value in by_time.items()},
                "timestep": best,
                "classes": len(bench.data.pixel_classes),
                "test pictures": len(bench.data.test),
            },
        )

    def _spec(self, source: str, timestep: float) -> FeatureSpec:
        return FeatureSpec(source=source, timestep=timestep, num_noises=self.num_noises)

    def _maps(self, bench: Bench, pixels: Tensor, spec: FeatureSpec) -> list[Tensor]:
        layers = self.layers if spec.source == self.source else (-1,)
        if spec.source == "encoder":
            layers = (-2,)  # its last block; the latents after it are a few channels only
        return bench.features(pixels, spec, layers)

    def _fit(self, bench: Bench, spec: FeatureSpec) -> nn.Module:
        maps = self._maps(bench, bench.data.train.pixels, spec)
        head = self._head(bench, maps)
        train_dense(bench, head, maps, self._loss(bench), self.train)
        return head

    def _head(self, bench: Bench, maps: list[Tensor]) -> nn.Module:
        widths, count = [x.shape[1] for x in maps], len(bench.data.pixel_classes)
        return build_head(lambda: self.head.build(widths, count), bench)

    def _loss(self, bench: Bench) -> Callable[[Tensor, Tensor, int], Tensor]:
        truth = bench.data.train.need("class_map").to(bench.device)

        def loss(output: Tensor, rows: Tensor, step: int) -> Tensor:
            """Cross-entropy on the head's own grid, with the truth of each place's middle."""
            target = truth[rows.to(truth.device)][:, None].float()
            target = functional.interpolate(target, size=output.shape[2:], mode="nearest-exact")
            return functional.cross_entropy(output, target[:, 0].long(), ignore_index=NO_CLASS)

        return loss

    def _score(
        self, bench: Bench, head: nn.Module, spec: FeatureSpec, part: LabelledPictures
    ) -> Row:
        maps = self._maps(bench, part.pixels, spec)
        found = (
            upsample(x, (part.pixels.shape[2], part.pixels.shape[3])).argmax(1).cpu()
            for x in predict_dense(bench, head, maps)
        )
        return _row(part, found, len(bench.data.pixel_classes))

    def _supervised(self, bench: Bench, spec: FeatureSpec) -> tuple[Bench, nn.Module]:
        head = self._head(bench, self._maps(bench, bench.data.train.pixels[:1], spec))
        step_loss = self._loss(bench)

        def loss(head: nn.Module, maps: list[Tensor], rows: Tensor) -> Tensor:
            return step_loss(head(maps), rows, 0)

        trained = train_supervised(bench, spec, self.layers, head, loss, self.supervised)
        return trained, head.eval()

    def _commonest(self, bench: Bench) -> Row:
        part, count = bench.data.test, len(bench.data.pixel_classes)
        truth = bench.data.train.need("class_map")
        commonest = torch.bincount(truth[truth >= 0].long(), minlength=count).argmax()
        return _row(part, [commonest.expand_as(part.need("class_map"))], count)


def _row(part: LabelledPictures, found: Iterable[Tensor], num_classes: int) -> Row:
    """Mean IoU and share of right pixels of predictions in the order of the set."""
    counts, start = torch.zeros(num_classes, num_classes, dtype=torch.int64), 0
    for predicted in found:
        target = part.need("class_map")[start : start + len(predicted)]
        counts += confusion(predicted, target, num_classes)
        start += len(predicted)
    right = float(counts.diagonal().sum() / counts.sum())
    return {"mIoU": round(mean_iou(counts), 4), "pixels right": round(right, 4)}
