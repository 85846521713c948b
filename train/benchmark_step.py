"""Say where a training step's time goes: the mask, the whole step, and the dearest kernels.

    python train/benchmark_step.py train/configs/storyworld_masked.yaml --run_dir runs/step

Takes a run's own config and shards; nothing is saved. The last lines are the kernels by time.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch.profiler import ProfilerActivity, profile

from unimm.config import load_config
from unimm.data.loader import TrainBatches
from unimm.distributed import shutdown
from unimm.nn.attention import batch_visibility
from unimm.training.config import TrainConfig
from unimm.training.engine import Engine, choose_device
from unimm.training.log import ModelFlops
from unimm.training.prepare import prepare
from unimm.training.resume import CHOICES


@dataclass(frozen=True, kw_only=True)
class StepConfig(TrainConfig):
    """A run, of which some steps are measured."""

    num_warm: int = 8
    """Steps before the first that is measured: kernels are compiled in them."""
    num_steps: int = 10
    """Steps that are measured."""
    num_kernels: int = 15
    """Kernels that are shown."""


def milliseconds(what: Callable[[int], object], count: int, device: torch.device) -> float:
    """Mean time of a call, until the device has finished."""

    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    started = wait()
    for number in range(count):
        what(number)
    return 1000 * (wait() - started) / count


def main() -> None:
    config = load_config(StepConfig, sys.argv[1:], choices=CHOICES)
    device = choose_device(config.engine.device)
    rows = config.data.rows_per_step
    parts = prepare(config, micro_rows=rows, device=device)
    count_flops = ModelFlops(parts.model, parts.image_tokenizer)
    engine = Engine(parts.model, config.engine, config.optimizer, device=device)
    batches = TrainBatches(parts.stream, micro_rows=rows)
    hosts = [batches[i] for i in range(config.num_warm + config.num_steps)]
    there = [batch.to(device) for batch in hosts]

    def step(number: int) -> None:
        engine.backward(engine.forward(there[number]).total)
        engine.step(learning_rate=config.optimizer.learning_rate, step=number)

    def mask(number: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            batch_visibility(there[number], head_width=config.model.backbone.head_width)

    milliseconds(step, config.num_warm, device)
    milliseconds(mask, config.num_warm, device)
    masks = milliseconds(mask, config.num_steps, device)
    steps = milliseconds(lambda i: step(config.num_warm + i), config.num_steps, device)
    flops = sum(map(count_flops, hosts[config.num_warm :])) / config.num_steps
    kinds = [ProfilerActivity.CPU]
    kinds += [ProfilerActivity.CUDA] if device.type == "cuda" else []
    with profile(activities=kinds) as profiler:
        milliseconds(step, min(3, config.num_warm), device)
    by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    table = profiler.key_averages().table(sort_by=by, row_limit=config.num_kernels)
    print("\n".join(line[:160] for line in islice(table.splitlines(), config.num_kernels + 12)))
    print(
        f"{rows} rows of {config.data.row_length}: mask {masks:.1f} ms, whole step {steps:.1f} ms, "
        f"{rows * config.data.row_length / steps * 1000:,.0f} positions/s, "
        f"{flops / steps / 1e9:.1f} TFLOP/s counted"
    )
    shutdown()


if __name__ == "__main__":
    main()
