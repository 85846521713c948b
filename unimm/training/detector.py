"""The detector's training loop, on renders made on the fly.

Worker processes sample scenes, the device renders each batch of them once and keeps it in a ring,
and every step trains on a random batch of the ring, half of it corrupted.
"""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from unimm.judges.corruptions import corrupt
from unimm.judges.detector import Detector, DetectorConfig
from unimm.judges.folder import save_detector
from unimm.judges.labels import Labels
from unimm.training.detector_loss import detector_loss

REFILL_EVERY = 3  # steps: rendering a batch takes about as long as training on one
# Before the clock starts: workers take a while to come up, and a renderer composes each look once,
# which makes its first hundred batches ten times as slow as all later ones.
WARM_BATCHES = 100


class _End:
    """Stands for the end of the batches, where None stands for none yet."""


_END = _End()


class RenderedBatch(NamedTuple):
    """Pictures ``(B, 3, H, W)`` uint8 and their truth, on the device."""

    rgb: Tensor
    labels: Labels


@dataclass(frozen=True, kw_only=True)
class DetectorRunConfig:
    """A training run of the detector.

    Attributes:
        detector: sizes.
        output: folder for the weights and the log.
        image_tokenizer: folder of an image tokenizer; half of the corrupted pictures are then its
            reconstructions.
        batch_size: pictures a step.
        max_minutes: the schedule's length in time.
        max_steps: the schedule's length in steps; whichever ends first.
        lr: highest learning rate.
        weight_decay: of matrices and convolutions.
        warmup: share of the run in which the rate rises.
        ring_size: rendered batches to keep on the device, 12.6 MB each for 256 pictures of 128 px.
        num_batches: of scenes to sample in all.
        style_shares: art -> share of the scenes.
        num_workers: processes that sample scenes; 0 samples between the steps.
        save_every_seconds: how often weights are written.
        seed: of the weights, the scenes and the corruptions.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    detector: DetectorConfig = field(default_factory=DetectorConfig)
    output: str = "runs/detector"
    image_tokenizer: str = ""
    batch_size: int = 256
    max_minutes: float = 1.2
    max_steps: int = 100_000
    lr: float = 3e-3
    weight_decay: float = 0.05
    warmup: float = 0.08
    ring_size: int = 400
    num_batches: int = 4000
    style_shares: dict[str, float] = field(default_factory=lambda: {"3d": 1.0})
    num_workers: int = 0
    save_every_seconds: float = 20.0
    seed: int = 0
    device: str = ""

    def __post_init__(self) -> None:
        if self.batch_size < 2 or self.max_steps < 1 or self.max_minutes <= 0:
            raise ValueError(
                f"batch_size {self.batch_size}, max_steps {self.max_steps}, max_minutes "
                f"{self.max_minutes}: need at least 2 pictures, 1 step and some time"
            )
        if not self.style_shares or min(self.style_shares.values()) < 0:
            raise ValueError(f"style_shares {self.style_shares}: give each art a share >= 0")


def learning_rate(progress: float, config: DetectorRunConfig) -> float:
    """Rate at a share of the run: linear rise, then a half cosine to a hundredth."""
    if progress < config.warmup:
        return config.lr * max(progress, 1e-3) / config.warmup
    rest = min(1.0, (progress - config.warmup) / (1 - config.warmup))
    return config.lr * (0.01 + 0.99 * (1 + math.cos(math.pi * rest)) / 2)


def train_detector(
    config: DetectorRunConfig,
    fresh: Iterator[RenderedBatch | None],
    *,
    generator: Generator,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
) -> Detector:
    """Train a detector for a fixed time.

    Args:
        config: the run.
        fresh: new batches on the device; None where none is ready yet.
        generator: on the device; corruptions, mirrors and the choice from the ring follow it.
        reconstruct: an image tokenizer's, see ``ImageTokenizer.reconstruct``.

    Returns:
        The detector in evaluation mode; its weights also lie in ``config.output``.

    Raises:
        ValueError: ``fresh`` gives no batch at all.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    device = generator.device
    detector = Detector(config.detector).to(device)
    optimizer = torch.optim.AdamW(
        _parameter_groups(detector, config.weight_decay), lr=config.lr, betas=(0.9, 0.99)
    )
    order = random.Random(config.seed)
    ring: list[RenderedBatch] = []
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    _fill(ring, fresh, min(config.ring_size, WARM_BATCHES))
    start = last_save = time.monotonic()
    columns = (
        TextColumn("detector"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as bar, (output / "log.jsonl").open("w") as log:
        task = bar.add_task("", total=1.0, note="")
        for step in range(config.max_steps):
            progress = max(
                (time.monotonic() - start) / (60 * config.max_minutes), step / config.max_steps
            )
            if progress >= 1:
                break
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, config)
            if step % REFILL_EVERY == 0:
                _refill(ring, fresh, config.ring_size, step // REFILL_EVERY)
            batch = order.choice(ring)
            loss, parts = _train_step(detector, batch, generator, order.random() < 0.5, reconstruct)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
            optimizer.step()

            if step % 20 == 0:
                entry = _log_entry(step, time.monotonic() - start, loss, parts, config, len(ring))
                log.write(json.dumps(entry) + "\n")
                log.flush()
                speed = f"{entry['images_per_second']:,.0f} img/s"
                note = f"step {step}  loss {entry['loss']:.3f}  {speed}"
                bar.update(task, completed=progress, note=note)
            if time.monotonic() - last_save > config.save_every_seconds:
                last_save = time.monotonic()
                save_detector(detector, output)
        bar.update(task, completed=1.0)
    detector.eval().requires_grad_(False)
    save_detector(detector, output)
    (output / "run.json").write_text(json.dumps(asdict(config), indent=1) + "\n")
    return detector


def _parameter_groups(detector: Detector, weight_decay: float) -> list[dict]:
    """Matrices and convolutions decay; biases and norms do not."""
    heavy = [p for p in detector.parameters() if p.ndim > 1]
    light = [p for p in detector.parameters() if p.ndim <= 1]
    return [
        {"params": heavy, "weight_decay": weight_decay},
        {"params": light, "weight_decay": 0.0},
    ]


def _fill(ring: list[RenderedBatch], fresh: Iterator[RenderedBatch | None], size: int) -> None:
    """Wait until the ring holds so many batches, or there are no more."""
    from rich.progress import track

    for _ in track(range(size), description="rendering"):
        while (batch := next(fresh, _END)) is None:
            time.sleep(0.01)
        if isinstance(batch, _End):
            break
        ring.append(batch)
    if not ring:
        raise ValueError("no scenes to train on: `fresh` is empty")


def _refill(
    ring: list[RenderedBatch], fresh: Iterator[RenderedBatch | None], size: int, turn: int
) -> None:
    """Take what is ready; a full ring gives up its oldest batch."""
    batch = next(fresh, None)
    if batch is None:
        return
    if len(ring) < size:
        ring.append(batch)
    else:
        ring[turn % size] = batch


def _train_step(
    detector: Detector,
    batch: RenderedBatch,
    generator: Generator,
    is_mirrored: bool,
    reconstruct: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss on one batch, half of it corrupted."""
    pixels = batch.rgb.float() / 127.5 - 1  # (B, 3, H, W)
    labels = batch.labels
    # Which half is corrupted changes, or a batch of the ring would always show the same half clean.
    order = torch.randperm(len(pixels), generator=generator, device=pixels.device)
    half = len(pixels) // 2
    with torch.no_grad():
        hurt = corrupt(pixels[order[:half]], generator, reconstruct=reconstruct)
        pixels = pixels.index_copy(0, order[:half], hurt)
    if is_mirrored:
        pixels, labels = pixels.flip(-1), labels.mirrored()
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    device = pixels.device.type
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        maps = detector(pixels)
    return detector_loss(detector, maps, labels, generator)


def _log_entry(
    step: int,
    seconds: float,
    loss: Tensor,
    parts: dict[str, Tensor],
    config: DetectorRunConfig,
    ring: int,
) -> dict[str, float]:
    speed = (step + 1) * config.batch_size / max(seconds, 1e-9)
    entry = {"step": step, "seconds": round(seconds, 2), "images_per_second": round(speed, 1)}
    entry |= {"ring": ring, "loss": loss.item()}
    return entry | {name: part.item() for name, part in parts.items()}
