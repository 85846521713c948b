"""Depth as a picture: the denoiser is trained to paint it, in many steps or in one.

All rows are scored after the scale and shift that fit each picture best. Legend: ``M`` members.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unimm.data.labelled.sets import LabelledPictures
from unimm.probes.depth import depth_row, trivial_depth
from unimm.probes.depth_ensemble import ensemble_depth
from unimm.probes.depth_painter import (
    DepthPainter,
    PainterTrainConfig,
    depth_picture_of,
    train_painter,
)
from unimm.probes.features import fit
from unimm.probes.plots import depth_picture, picture_rows, to_array
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult

_NUM_SHOWN = 6
_COLUMNS = ("AbsRel, aligned", "delta1, aligned")


@dataclass(frozen=True, kw_only=True)
class MarigoldConfig(ProbeConfig):
    """Painted depth.

    Attributes:
        train: of the painter, from the model's own head.
        one_step: further training, end to end on one step from zeros.
        num_steps: of sampling: each number is scored; the last one is also taken for the ensemble.
        num_members: of the ensemble.
        batch_size: pictures at once.
        trains_from_scratch: also train a head with fresh weights, as a control.
    """

    name: ClassVar[str] = "marigold"

    train: PainterTrainConfig = field(default_factory=PainterTrainConfig)
    one_step: PainterTrainConfig = field(
        default_factory=lambda: PainterTrainConfig(
            num_steps=1500, batch_size=32, learning_rate=2e-4
        )
    )
    num_steps: tuple[int, ...] = (1, 4, 10, 50)
    num_members: int = 10
    batch_size: int = 128
    trains_from_scratch: bool = True

    def run(self, bench: Bench) -> ProbeResult:
        """Train, paint, and compare with what needs no training."""
        if bench.model.pipeline is None:
            raise ValueError(f"{bench.model.name}: painting depth needs a model of unimm's own")
        painter = self._trained(bench)
        most = max(self.num_steps)
        table: dict[str, dict[str, Any]] = {}
        single: Tensor | None = None
        for count in self.num_steps:
            found = self._paint(bench, painter, count, bench.seed)
            single = found if count == most else single
            table[f"{count} steps"] = self._row(bench, found)
            bench.tell(f"{count} steps: {table[f'{count} steps']}")
        assert single is not None
        others = [
            self._paint(bench, painter, most, bench.seed + i) for i in range(1, self.num_members)
        ]
        merged = self._merge(bench, torch.stack([single, *others]))
        many = f"{most} steps, {self.num_members} members"
        table[many] = self._row(bench, merged)
        self._train(bench, painter, self.one_step, is_one_step=True)
        at_once = self._paint_at_once(bench, painter)
        table["one step, end to end"] = self._row(bench, at_once)
        controls = ["depth through the image tokenizer", "mean depth map", "constant depth"]
        if self.trains_from_scratch:
            fresh = self._trained(bench.at_random("denoiser"))
            table["head from scratch"] = self._row(
                bench, self._paint(bench, fresh, most, bench.seed)
            )
            controls.append("head from scratch")
        table["depth through the image tokenizer"] = self._row(bench, self._ceiling(bench, painter))
        table |= {name: _aligned(row) for name, row in trivial_depth(bench).items()}
        error = {name: row[_COLUMNS[0]] for name, row in table.items()}
        return ProbeResult(
            table=table,
            controls=tuple(controls),
            figures={
                "one step over ensemble": round(
                    error["one step, end to end"] / max(error[many], 1e-9), 4
                ),
                "ensemble over one": round(error[many] / max(error[f"{most} steps"], 1e-9), 4),
                "test pictures": len(bench.data.test),
            },
            pictures={
                "painted": self._plot(
                    bench, [("one sample", single), ("ensemble", merged), ("one step", at_once)]
                )
            },
        )

    def _trained(self, bench: Bench) -> DepthPainter:
        assert bench.model.pipeline is not None
        painter = DepthPainter(bench.model.pipeline).to(bench.device)
        self._train(bench, painter, self.train, is_one_step=False)
        return painter

    def _train(
        self, bench: Bench, painter: DepthPainter, config: PainterTrainConfig, *, is_one_step: bool
    ) -> None:
        train_painter(
            painter,
            bench.data.train,
            config,
            is_one_step=is_one_step,
            seed=bench.seed,
            show_progress=bench.cache.show_progress,
        )

    def _pictures(self, bench: Bench, painter: DepthPainter) -> list[Tensor]:
        """Latents of the test pictures, in batches."""
        return [
            painter.encode(fit(x.to(bench.device).float() / 127.5 - 1, bench.model.image_size))
            for x in bench.data.test.pixels.split(self.batch_size)
        ]

    def _paint(self, bench: Bench, painter: DepthPainter, count: int, seed: int) -> Tensor:
        """Depth of the test pictures, each batch from noise of its own."""
        generator = torch.Generator(bench.device).manual_seed(seed)
        pictures = self._pictures(bench, painter)
        found = [painter.paint(x, num_steps=count, generator=generator).cpu() for x in pictures]
        return torch.cat(found)

    @torch.no_grad()
    def _paint_at_once(self, bench: Bench, painter: DepthPainter) -> Tensor:
        return torch.cat([painter.paint_at_once(x).cpu() for x in self._pictures(bench, painter)])

    @torch.no_grad()
    def _ceiling(self, bench: Bench, painter: DepthPainter) -> Tensor:
        """True depth, encoded and decoded."""
        test = bench.data.test
        found: list[Tensor] = []
        for rows in torch.arange(len(test)).split(self.batch_size):
            depth, mask = (test.need(x)[rows].to(bench.device) for x in ("depth", "has_depth"))
            found.append(painter.decode(painter.encode(depth_picture_of(depth, mask))).cpu())
        return torch.cat(found)

    def _merge(self, bench: Bench, members: Tensor) -> Tensor:
        """The ensemble, some pictures at once: ``(M, N, H, W)`` to ``(N, H, W)``."""
        chunks = members.split(self.batch_size, dim=1)
        return torch.cat([ensemble_depth(x.to(bench.device))[0].cpu() for x in chunks])

    def _row(self, bench: Bench, painted: Tensor) -> dict[str, float]:
        return _aligned(depth_row(bench.data.test, [painted]))

    def _plot(self, bench: Bench, shown: list[tuple[str, Tensor]]) -> Any:
        test: LabelledPictures = bench.data.test
        depth, mask = (test.need(x)[:_NUM_SHOWN] for x in ("depth", "has_depth"))
        truth = depth_picture_of(depth, mask)[:, 0]
        columns = [("picture", [to_array(x) for x in test.pixels[:_NUM_SHOWN]])]
        for name, maps in [("truth", truth), *shown]:
            # Stretched alike: what is painted has no scale of its own.
            columns.append((name, [_grey(x) for x in maps[:_NUM_SHOWN]]))
        return picture_rows(columns)


def _aligned(row: dict[str, float]) -> dict[str, float]:
    return {name: row[name] for name in _COLUMNS}


def _grey(depth: Tensor) -> Any:
    low, high = torch.quantile(depth.flatten(), torch.tensor([0.02, 0.98]))
    return depth_picture(1 + (depth - low) / (high - low).clamp(min=1e-6), 1.0, 2.0)
