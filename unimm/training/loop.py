"""Train a trunk: one function that reads top to bottom."""

import logging
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch

from unimm.data.loader import TrainBatches, iterate_batches
from unimm.distributed import barrier, is_main, world_size
from unimm.document import Batch
from unimm.model import UniMM
from unimm.training.build import empty_model
from unimm.training.config import TrainConfig
from unimm.training.engine import Engine, choose_device
from unimm.training.evaluate import evaluate
from unimm.training.log import Meter, ModelFlops, RunLog, num_elements
from unimm.training.peers import Peers
from unimm.training.pin import pin_data
from unimm.training.prepare import Parts, prepare
from unimm.training.resume import (
    RunState,
    StopSignal,
    load_checkpoint,
    save_checkpoint,
    start_run,
)
from unimm.training.schedule import Clock, learning_rate_factor
from unimm.training.shared_step import agree, cut_step
from unimm.training.watch import StepGuard
from unimm.training.watchdog import Watchdog

logger = logging.getLogger(__name__)

Finish = Callable[[UniMM, Parts, Path], None]
"""Given the model with averaged weights, the run's parts, and a path to write to."""


def train(config: TrainConfig, *, draw: Finish, save: Finish) -> Path:
    """Train a trunk, or go on with a run that was interrupted.

    Args:
        config: the run.
        draw: writes a grid of samples to a picture file.
        save: writes the finished model folder.

    Returns:
        The model folder, ``run_dir/model``.

    Raises:
        ValueError: the config, the data or an old run in the same folder do not fit.
        RuntimeError: too many steps in a row had to be skipped, or another rank has died.
        SystemExit: 0 after SIGTERM, with a checkpoint saved.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns in loader workers
    device = choose_device(config.engine.device)
    with Peers():
        return _run(config, device, draw=draw, save=save)


def _run(config: TrainConfig, device: torch.device, *, draw: Finish, save: Finish) -> Path:
    run_dir = Path(config.run_dir)
    start_run(config)
    torch.manual_seed(config.seed)

    micro_rows, grad_accum_steps = cut_step(
        config, num_ranks=world_size() // config.engine.sequence_ranks
    )
    parts = prepare(config, micro_rows=micro_rows, device=device)
    pin_data(run_dir, parts.stream.corpus.fingerprint)
    count_flops = ModelFlops(parts.model, parts.image_tokenizer)
    model = parts.model
    engine = Engine(
        model,
        config.engine,
        config.optimizer,
        device=device,
        grad_accum_steps=grad_accum_steps,
    )
    state = load_checkpoint(engine, run_dir=run_dir)
    clock = _clock(config, state)
    batches = _open_batches(config, parts, engine, start=state.step * grad_accum_steps)
    meter = Meter(model, device, sequence_ranks=config.engine.sequence_ranks)
    guard = StepGuard(config.guard, run_dir=run_dir, device=device, state=state.guard)
    every, step, first_step = config.logging, state.step, state.step
    flops, images = state.flops, state.images

    with (
        RunLog(config, step=step) as log,
        StopSignal() as stop,
        Watchdog(config.guard.hang_seconds) as watchdog,
    ):
        if step == 0:
            log.write(0, describe(parts), progress=0.0)
        if config.engine.compile:
            logger.info("compiling in the first step: half a minute to some minutes, silently")
        progress = max(clock.progress(step), clock.share_of_work(flops))
        while progress < 1.0:
            watchdog.enter(step, "load")
            micro_batches = list(islice(batches, grad_accum_steps))
            counted = [*map(count_flops, micro_batches)]
            watchdog.enter(step, "agree")
            agreed = agree(
                micro_batches, sum(counted), clock.progress(step + 1), stop.is_set, device
            )
            flops += agreed.flops / config.engine.sequence_ranks
            images += agreed.images // config.engine.sequence_ranks
            progress = max(agreed.progress, clock.share_of_work(flops))
            watchdog.enter(step, "forward and backward")
            for batch, number in zip(micro_batches, counted, strict=True):
                losses = engine.forward(batch.to(device), counts=agreed.counts)
                engine.backward(losses.total)
                meter.add(batch, losses, number)
                guard.add(batch, losses.total)
            rate = config.optimizer.learning_rate * _rate_factor(config, progress)
            is_logged = (step + 1) % every.log_every == 0
            watchdog.enter(step, "step")
            norm = engine.step(
                learning_rate=rate, step=step, is_measured=is_logged, skip=guard.judge()
            )
            guard.close_step(step, engine.is_skipped)
            step += 1
            if step == first_step + 1:
                _wait(device)
                clock.mark_warm()
                logger.info("first step done %d s after the start", clock.warm_seconds)

            is_last = progress >= 1.0
            is_saved = is_last or agreed.is_stopped or _is_due(step, every.save_every)
            watchdog.enter(step, "log")
            if is_logged or is_saved:
                guard.check()
            if is_logged or is_last:
                work = {"flops": flops, "images": images, "seconds": clock.elapsed()}
                figures = meter.close() | {"learning_rate": rate} | work
                figures["skipped"] = guard.num_skipped
                log.write(step, figures | ({"norm": norm} if norm else {}), progress=progress)
            if is_last or _is_due(step, every.evaluate_every):
                watchdog.enter(step, "evaluate")
                with engine.averaged_weights():
                    log.write(step, evaluate(engine, parts.evaluation, device), progress=progress)
            if not is_last and _is_due(step, every.sample_every):
                watchdog.enter(step, "draw samples")
                _draw(engine, parts, draw, run_dir / "samples" / f"step_{step:06d}.png")
            if is_saved:
                watchdog.enter(step, "save")
                now = RunState(
                    step=step,
                    seconds=clock.elapsed(),
                    warm_seconds=clock.warm_seconds,
                    num_ranks=world_size(),
                    flops=flops,
                    images=images,
                    guard=guard.state(),
                )
                save_checkpoint(engine, now, run_dir=run_dir, keep=every.keep_checkpoints)
            if agreed.is_stopped and not is_last:
                logger.info("stopped by SIGTERM after step %d; run again to go on", step)
                raise SystemExit(0)

    return _finish(engine, parts, config, draw=draw, save=save)


def describe(parts: Parts) -> dict[str, float | int]:
    """What a run is about to do, for the first line of its log."""
    return {
        "parameters": sum(map(num_elements, parts.model.parameters())),
        "documents": parts.stream.corpus.num_documents,
        "images": parts.stream.corpus.num_images,
        "fill_rate": parts.stream.fill_rate(),
    }


def _clock(config: TrainConfig, state: RunState) -> Clock:
    minutes = config.max_minutes
    return Clock(
        max_steps=config.max_steps,
        max_seconds=None if minutes is None else 60 * minutes,
        max_flops=config.max_flops,
        seconds=state.seconds,
        warm_seconds=state.warm_seconds,
    )


def _open_batches(
    config: TrainConfig, parts: Parts, engine: Engine, *, start: int
) -> Iterator[Batch]:
    micro_rows, _ = cut_step(config, num_ranks=engine.num_shares)
    return iterate_batches(
        TrainBatches(
            parts.stream, micro_rows=micro_rows, rank=engine.share, world_size=engine.num_shares
        ),
        start=start,
        num_workers=config.data.num_workers,
        is_pinned=torch.cuda.is_available() and config.engine.device != "cpu",
    )


def _rate_factor(config: TrainConfig, progress: float) -> float:
    schedule = config.schedule
    hold = schedule.warmup if schedule.name == "cosine" else schedule.hold
    return learning_rate_factor(progress, warmup=schedule.warmup, hold=hold, final=schedule.final)


def _is_due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _draw(engine: Engine, parts: Parts, draw: Finish, path: Path) -> None:
    """Draw with the averaged weights; under ZeRO 3 no rank holds them, so nothing is drawn."""
    if engine.config.zero_stage == 3:
        return
    with engine.averaged_weights():
        if is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(engine.model, parts, path)
    barrier()


def _finish(
    engine: Engine, parts: Parts, config: TrainConfig, *, draw: Finish, save: Finish
) -> Path:
    """Write the model folder and a last grid, from a plain copy of the model on the first rank.

    The average is copied from where it lies: to put it in the weights' place would gather all of
    them once more beside the copy.
    """
    run_dir = Path(config.run_dir)
    model = None
    if is_main():
        trained = engine.model
        model = empty_model(config.model, special=trained.special, spec=trained.spec)
    engine.copy_weights(model, is_averaged=True)
    if model is not None:
        model.bind(parts.image_tokenizer)
        save(model, parts, run_dir / "model")
        (run_dir / "samples").mkdir(exist_ok=True)
        draw(
            model.to(choose_device(config.engine.device)), parts, run_dir / "samples" / "final.png"
        )
    barrier()
    return run_dir / "model"
