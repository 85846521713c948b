"""Depth as a picture: the denoiser is trained to paint it, in many steps or in one.

All rows are scored after the scale and shift that fit each picture best. Legend: ``M`` members.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from unimm.objectives.diffusion import Diffusion
from unimm.probes.depth_painter import DepthPainter, PainterTrainConfig, train_painter
from unimm.probes.painted import (
    CEILING,
    ERROR,
    check_size,
    depth_picture_of,
    merge_members,
    painted_plot,
    painted_row,
    trivial_rows,
)
from unimm.probes.probe import Bench, ProbeConfig, ProbeResult


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
    objectives = (Diffusion,)

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
        check_size(bench)
        test = bench.data.test
        painter = self._trained(bench)
        most = max(self.num_steps)
        table: dict[str, dict[str, Any]] = {}
        single: Tensor | None = None
        for count in self.num_steps:
            found = self._paint(bench, painter, count, bench.seed)
            single = found if count == most else single
            table[f"{count} steps"] = painted_row(test, found)
            bench.tell(f"{count} steps: {table[f'{count} steps']}")
        assert single is not None
        others = [
            self._paint(bench, painter, most, bench.seed + i) for i in range(1, self.num_members)
        ]
        merged = merge_members(
            torch.stack([single, *others]), bench.device, batch_size=self.batch_size
        )
        many = f"{most} steps, {self.num_members} members"
        table[many] = painted_row(test, merged)
        self._train(bench, painter, self.one_step, is_one_step=True)
        at_once = self._paint_at_once(bench, painter)
        table["one step, end to end"] = painted_row(test, at_once)
        controls = [CEILING, "mean depth map", "constant depth"]
        if self.trains_from_scratch:
            fresh = self._trained(bench.at_random("denoiser"))
            table["head from scratch"] = painted_row(
                test, self._paint(bench, fresh, most, bench.seed)
            )
            controls.append("head from scratch")
        table[CEILING] = painted_row(test, self._ceiling(bench, painter))
        table |= trivial_rows(bench)
        error = {name: row[ERROR] for name, row in table.items()}
        return ProbeResult(
            table=table,
            controls=tuple(controls),
            score=ERROR,
            is_error=True,
            subject=many,
            ceilings=(CEILING,),
            figures={
                "one step over ensemble": round(
                    error["one step, end to end"] / max(error[many], 1e-9), 4
                ),
                "ensemble over one": round(error[many] / max(error[f"{most} steps"], 1e-9), 4),
                "test pictures": len(test),
            },
            pictures={
                "painted": painted_plot(
                    test, [("one sample", single), ("ensemble", merged), ("one step", at_once)]
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
            painter.encode(x.to(bench.device).float() / 127.5 - 1)
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
