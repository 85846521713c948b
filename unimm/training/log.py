"""What a run says of itself: a progress bar, ``log.jsonl``, and Weights and Biases when asked."""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from unimm.distributed import all_reduce_sum, is_main, world_size
from unimm.document import Batch
from unimm.model import Losses, UniMM
from unimm.training.config import TrainConfig

LOG_FILE = "log.jsonl"
# Dense bfloat16 floating-point operations a second, from the data sheets.
_PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


class RunLog:
    """Writes a run's log; silent on all ranks but the first.

    Args:
        config: the run.
        step: steps done already.
    """

    def __init__(self, config: TrainConfig, *, step: int) -> None:
        self._file: TextIO | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._wandb: Any = None
        if not is_main():
            return
        console = Console()
        self._file = (Path(config.run_dir) / LOG_FILE).open("a", encoding="utf-8")
        columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[figures]}"))
        # Without a terminal the lines of the log stand in for the bar.
        self._lines = None if console.is_terminal else console
        self._bar = Progress(*columns, console=console, disable=self._lines is not None)
        self._task = self._bar.add_task("", total=1.0, figures=f"step {step}")
        if config.logging.wandb != "off":
            import wandb

            self._wandb = wandb.init(
                project=config.logging.project,
                dir=config.run_dir,
                mode=config.logging.wandb,
                config=asdict(config),
                resume="allow",
                id=Path(config.run_dir).name,
            )

    def __enter__(self) -> "RunLog":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._file is not None:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish()

    def write(self, step: int, figures: Mapping[str, Any], *, progress: float) -> None:
        """Add a line."""
        if self._file is None or self._bar is None:
            return
        values = {name: round(x, 6) if isinstance(x, float) else x for name, x in figures.items()}
        line = {"step": step, "progress": round(progress, 5), **values}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        text = "  ".join(f"{name} {_short(value)}" for name, value in values.items())
        self._bar.update(self._task, completed=progress, figures=f"step {step}  {text}")
        if self._lines is not None:
            self._lines.print(
                f"{progress:6.1%}  step {step}  {text}", soft_wrap=True, highlight=False
            )
        if self._wandb is not None:
            self._wandb.log(dict(figures), step=step)


class Meter:
    """Sums losses, positions and work between two lines of the log, without waiting for the device.

    Args:
        model: whose work is counted.
        device: of the run.
    """

    def __init__(self, model: UniMM, device: torch.device) -> None:
        self._heads = ("text", *model.config.heads)
        self.count_flops = ModelFlops(model)
        self._device = device
        self._peak = _peak_flops(device)
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._counts: Counter[str] = Counter()
        self._positions = self._flops = 0.0
        self._started = time.monotonic()

    def add(self, batch: Batch, losses: Losses) -> None:
        """Count one micro-batch; ``batch`` is the copy on the host."""
        sums = torch.stack([losses.sums[head].float() for head in self._heads])
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts.update(losses.counts)
        self._positions += batch.input_ids.numel()
        self._flops += self.count_flops(batch)

    def close(self) -> dict[str, float]:
        """Give the figures since the last call, losses in nats a prediction; then restart."""
        assert self._sums is not None, "nothing was added"
        counts = torch.tensor([float(self._counts[head]) for head in self._heads])
        totals = all_reduce_sum(torch.cat([self._sums.detach(), counts.to(self._device)])).tolist()
        seconds = time.monotonic() - self._started
        figures: dict[str, float] = {}
        for head, loss, number in zip(
            self._heads, totals, totals[len(self._heads) :], strict=False
        ):
            if number:
                figures[head] = loss / number
        figures["tokens_per_second"] = self._positions * world_size() / seconds
        if self._peak:
            figures["mfu"] = self._flops / seconds / self._peak
        self._reset()
        return figures


class ModelFlops:
    """Floating-point operations of a training step: 6 a weight and position, and attention's own.

    Attention counts what the rule allows inside each document, forward and backward
    (6 * depth * width * length^2); a recomputed forward is not counted.
    """

    def __init__(self, model: UniMM) -> None:
        config = model.config.backbone
        self._per_position = 6 * sum(map(num_elements, model.backbone.parameters()))
        self._per_square = 6 * config.depth * config.num_heads * config.head_width
        self._per_prediction = {
            "text": 6 * num_elements(model.text_head.weight),
            **{name: 6 * _multiplied_weights(model.objective(name)) for name in model.config.heads},
        }

    def __call__(self, batch: Batch) -> float:
        """Count for a batch that lies on the host."""
        lengths = batch.cu_seqlens.diff().double()
        heads = sum(
            per * len(batch.slots[head].index) for head, per in self._per_prediction.items()
        )
        attention = self._per_square * float(lengths.square().sum())
        return self._per_position * batch.input_ids.numel() + attention + heads


def _multiplied_weights(module: nn.Module) -> int:
    """Weights that every position is multiplied with: all but tables that are looked up."""
    parts = (part for part in module.modules() if not isinstance(part, nn.Embedding))
    return sum(num_elements(p) for part in parts for p in part.parameters(recurse=False))


def num_elements(parameter: Tensor) -> int:
    """Size of a parameter, of which ZeRO 3 leaves nothing in place."""
    return getattr(parameter, "ds_numel", parameter.numel())


def _peak_flops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for chip, peak in _PEAK_FLOPS.items() if chip in name), None)


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
