"""What a run says of itself: a progress bar, ``log.jsonl``, and Weights and Biases when asked."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from unimm.distributed import all_reduce_sum, is_main, rank, world_size
from unimm.document import Batch, count_visible
from unimm.model import Losses, UniMM
from unimm.nn.transformer import Backbone
from unimm.objectives.base import ImageSpec, ObjectiveConfig
from unimm.tokenizer.image import ImageTokenizer
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
        """Add a line; a figure that is no number becomes null, which JSON knows."""
        if self._file is None or self._bar is None:
            return
        values = {name: _plain(value) for name, value in figures.items()}
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
        model: whose losses are summed.
        device: of the run.
        sequence_ranks: ranks that share each row, and count the same positions.
    """

    def __init__(self, model: UniMM, device: torch.device, *, sequence_ranks: int = 1) -> None:
        self._sharing = sequence_ranks
        self._heads = ("text", *model.config.heads)
        self._device = device
        self._peak = _peak_flops(device)
        self._reset()

    def _reset(self) -> None:
        self._sums: Tensor | None = None
        self._counts: Counter[str] = Counter()
        self._positions = self._flops = self._images = 0.0
        self._started = time.monotonic()

    def add(self, batch: Batch, losses: Losses, flops: float) -> None:
        """Count one micro-batch and its operations; ``batch`` is the copy on the host."""
        sums = torch.stack([losses.sums[head].float() for head in self._heads])
        self._sums = sums if self._sums is None else self._sums + sums
        self._counts.update(losses.counts)
        self._positions += batch.input_ids.numel()
        self._flops += flops
        self._images += sum(len(slots.seeds) for slots in batch.slots.values())

    def close(self) -> dict[str, float]:
        """Give the figures since the last call, losses in nats a prediction; then restart."""
        assert self._sums is not None, "nothing was added"
        own = [*(float(self._counts[head]) for head in self._heads), self._images]
        # A place for each rank: the sum over ranks then holds all their peaks.
        peaks = [0.0] * world_size()
        if self._device.type == "cuda":
            peaks[rank()] = torch.cuda.max_memory_allocated(self._device) / 2**30
        counted = torch.tensor(own + peaks, device=self._device)
        totals = all_reduce_sum(torch.cat([self._sums.detach(), counted])).tolist()
        seconds = time.monotonic() - self._started
        figures: dict[str, float] = {}
        for head, loss, number in zip(
            self._heads, totals, totals[len(self._heads) :], strict=False
        ):
            if number:
                figures[head] = loss / number
        figures["tokens_per_second"] = self._positions * world_size() / self._sharing / seconds
        figures["images_per_second"] = totals[2 * len(self._heads)] / self._sharing / seconds
        if peak := max(totals[-world_size() :]):
            figures["peak_memory_gib"] = peak  # of the rank that needed most
        if self._peak:
            figures["mfu"] = self._flops / self._sharing / seconds / self._peak
        self._reset()
        return figures


class ModelFlops:
    """Floating-point operations of a training step, as multiply-adds of two operations each.

    - The trunk's and the text head's matrices: 6 a weight and position (forward 2, backward 4).
      Padding is computed, so it is counted; tables that are looked up and norms are not.
    - Attention: 12 * depth * width for each pair of query and key that the rule lets see each
      other, so half a square for causal text and all of it inside a denoised picture.
    - Objectives: one forward of ``embed`` and ``loss`` on a picture of zeros is counted by torch's
      own counter, times 3 and the number of pictures: a denoiser's draws and attention are in it.

    What is not counted: the frozen image tokenizer (its convolutions inside an objective, too), a
    recomputed forward, and objectives without a picture in the batch, which run on zeros.

    Only the model's sizes are read: its weights may be sharded.

    Args:
        model: whose steps are counted.
        image_tokenizer: that its objectives are bound to.
    """

    def __init__(self, model: UniMM, image_tokenizer: ImageTokenizer) -> None:
        config = model.config.backbone
        with torch.device("meta"):
            trunk = Backbone(config)
        weights = sum(p.numel() for p in trunk.parameters() if p.ndim > 1)
        self._per_position = 6 * weights
        self._per_pair = 12 * config.depth * config.num_heads * config.head_width
        self._per_text = 6 * model.special.vocab_size * config.dim
        self._per_picture = {
            objective.name: 3 * _head_flops(objective, config.dim, model.spec, image_tokenizer)
            for objective in model.config.objectives
        }

    def __call__(self, batch: Batch) -> float:
        """Count for a batch that lies on the host."""
        pictures = sum(
            per * len(batch.slots[head].seeds) for head, per in self._per_picture.items()
        )
        text = self._per_text * len(batch.slots["text"].index)
        attention = float(self._per_pair * count_visible(batch))
        return self._per_position * batch.input_ids.numel() + attention + text + pictures


@torch.no_grad()
def _head_flops(
    config: ObjectiveConfig, dim: int, spec: ImageSpec, image_tokenizer: ImageTokenizer
) -> int:
    """Of one picture's way into the trunk and out of it, forward only."""
    device = image_tokenizer.latent_mean.device
    with torch.random.fork_rng(devices=[]):  # a run's randomness must not depend on counting
        objective = config.build(dim, spec).to(device)
    objective.bind(image_tokenizer)
    draw = objective.draw(objective.zeros(device), [torch.Generator().manual_seed(0)])
    counter = FlopCounterMode(display=False)
    # The plain kernel is made of products, which are counted on every device.
    with counter, sdpa_kernel(SDPBackend.MATH):
        positions = spec.grid_size**2
        if objective.fills_slots:
            positions = len(objective.embed(draw))
        objective.loss(torch.zeros(positions, dim, device=device), draw)
    counts = counter.get_flop_counts().get("Global", {})
    return sum(number for op, number in counts.items() if "conv" not in str(op))


def num_elements(parameter: Tensor) -> int:
    """Size of a parameter, of which ZeRO 3 leaves nothing in place."""
    return getattr(parameter, "ds_numel", parameter.numel())


def _peak_flops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for chip, peak in _PEAK_FLOPS.items() if chip in name), None)


def _plain(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
