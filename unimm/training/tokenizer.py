"""Train an image tokenizer: one function, one process, one device.

The loop reads top to bottom: resume, step, log, draw a sample grid, save. It runs on one device;
several ranks (the codebook's counts summed once a step) are not built in.

Shapes: B batch, H W picture.
"""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from unimm.checkpoint.folder import save_image_tokenizer
from unimm.data.images import PictureBatch
from unimm.metrics.image import score_pictures, summarize_scores
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.losses import PatchDiscriminator
from unimm.training.picture_grid import save_pairs
from unimm.training.schedule import Clock
from unimm.training.tokenizer_config import TokenizerTrainConfig
from unimm.training.tokenizer_state import (
    TokenizerState,
    copy_for_average,
    load_state,
    save_state,
)
from unimm.training.tokenizer_step import LogWindow, TrainStep, to_pixels

STATE_FILE = "state.safetensors"
LOG_FILE = "log.jsonl"
RESULT_FOLDER = "image_tokenizer"


def train_image_tokenizer(
    config: TokenizerTrainConfig,
    *,
    open_batches: Callable[[int], Iterator[PictureBatch]],
    held_out: PictureBatch,
) -> ImageTokenizer:
    """Train, log, save, and give the averaged tokenizer.

    Args:
        config: the run.
        open_batches: gives the endless training batches from a step on.
        held_out: pictures that training never sees; evaluated every ``sample_every`` steps.

    Returns:
        The tokenizer as saved in ``run_dir/image_tokenizer``, in evaluation mode.

    Raises:
        RuntimeError: if the loss is no longer a number.
    """
    device = torch.device(config.device)
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True  # the shapes never change

    state = _start(config, device)
    if (run_dir / STATE_FILE).is_file():
        load_state(state, run_dir / STATE_FILE)
    take_step = TrainStep(config, state, device)
    batches = open_batches(state.step)
    window = LogWindow(config, device)

    with _progress_bar() as bar, (run_dir / LOG_FILE).open("a", encoding="utf-8") as log:
        task = bar.add_task("image tokenizer", total=1.0, figures="")
        progress = state.clock.progress(state.step)
        while progress < 1.0:
            batch = next(batches)
            terms = take_step(batch, progress)
            state.step += 1
            if window.is_first:
                state.clock.mark_warm()
            window.add(terms)
            progress = state.clock.progress(state.step)
            is_last = progress >= 1.0

            if state.step % config.log_every == 0 or is_last:
                line = {"step": state.step, "progress": round(progress, 4)} | window.close()
                if not math.isfinite(line["loss"]):
                    raise RuntimeError(
                        f"the loss is {line['loss']} at step {state.step}; resume from the last "
                        "state with a lower learning_rate, or without is_mixed"
                    )
                _write(log, line)
                bar.update(task, completed=progress, figures=_headline(line))
            if state.step % config.sample_every == 0 or is_last:
                _write(log, {"step": state.step, "held_out": evaluate(state, held_out, run_dir)})
            if state.step % config.save_every == 0 or is_last:
                measure_latents(state.average, to_pixels(batch.pixels, device))
                save_image_tokenizer(
                    state.average, run_dir / RESULT_FOLDER, precision=config.precision
                )
                save_state(state, run_dir / STATE_FILE)
    return state.average


@torch.no_grad()
def evaluate(state: TokenizerState, held_out: PictureBatch, run_dir: Path) -> dict[str, float]:
    """Score the averaged tokenizer on held-out pictures and draw them beside their originals.

    Returns:
        Name -> figure; those of a second and later schedule are named ``schedule/name``.
    """
    device = state.average.latent_mean.device
    pixels = to_pixels(held_out.pixels, device)
    mask = None if held_out.mask is None else held_out.mask.to(device)
    figures: dict[str, float] = {}
    for number, schedule in enumerate(state.average.schedules):
        drawn = state.average.reconstruct(pixels, schedule)
        summary = summarize_scores([score_pictures(drawn, pixels, mask)])
        prefix = f"{schedule}/" if number else ""
        figures |= {prefix + name: round(value, 4) for name, value in summary.items()}
        if number == 0:
            path = run_dir / "samples" / f"step_{state.step:06d}.png"
            save_pairs(path, pixels[:24], drawn[:24])
    return figures


@torch.no_grad()
def measure_latents(tokenizer: ImageTokenizer, pixels: Tensor) -> None:
    """Store mean and standard deviation of each channel of the latents over some pictures."""
    latents = tokenizer.encode(pixels).latents
    assert latents is not None
    values = latents.movedim(1, -1).flatten(0, 2)  # (B h w, C)
    tokenizer.latent_mean.copy_(values.mean(dim=0))
    tokenizer.latent_std.copy_(values.std(dim=0))


def _start(config: TokenizerTrainConfig, device: torch.device) -> TokenizerState:
    tokenizer: Any = ImageTokenizer(config.tokenizer).to(device)
    tokenizer.to(memory_format=torch.channels_last)
    average = copy_for_average(tokenizer)
    is_fused = device.type == "cuda"

    def adamw(parameters: Iterator[torch.nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=is_fused,
        )

    seconds = None if config.max_minutes is None else 60 * config.max_minutes
    state = TokenizerState(
        tokenizer=tokenizer.train(),
        average=average,
        optimizer=adamw(tokenizer.parameters()),
        generator=torch.Generator().manual_seed(config.seed),
        clock=Clock(max_steps=config.max_steps, max_seconds=seconds),
    )
    if config.loss.adversarial > 0:
        discriminator: Any = PatchDiscriminator().to(device)
        discriminator.to(memory_format=torch.channels_last)
        state.discriminator = discriminator
        state.discriminator_optimizer = adamw(discriminator.parameters())
    return state


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[figures]}"),
        refresh_per_second=1,
    )


def _headline(line: dict[str, float]) -> str:
    inside = f" (figures {line['psnr_figures']:.2f})" if "psnr_figures" in line else ""
    return (
        f"step {line['step']} loss {line['loss']:.4f} PSNR {line['psnr']:.2f}{inside} "
        f"codes {line['codes_used']} {line['images_per_second']:.0f} img/s"
    )


def _write(log: TextIO, line: dict[str, Any]) -> None:
    log.write(json.dumps(line) + "\n")
    log.flush()
