"""Compare ZeRO stages and numbers of GPUs: losses of one batch, speed and memory of growing ones.

torchrun --nproc_per_node 1 train/benchmark_scaling.py train/configs/scaling.yaml --weak_stage 1
torchrun --nproc_per_node 2 train/benchmark_scaling.py train/configs/scaling.yaml --curve_stages 1 3
"""

import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
import torch.distributed as dist

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.distributed import is_main, shutdown, world_size
from unimm.ledger import write_ledger
from unimm.tokenizer.text import TextTokenizer
from unimm.training.config import TrainConfig
from unimm.training.engine import choose_device
from unimm.training.loop import train
from unimm.training.planner import Planner
from unimm.training.resume import CHOICES


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """What is measured.

    Attributes:
        curve: run whose losses are compared; its global batch is the same on any number of GPUs.
        weak: run whose speed and memory are measured; its rows are those of one GPU.
        curve_stages: ZeRO stages that ``curve`` runs in.
        weak_stage: ZeRO stage that ``weak`` runs in, 0 for none; one a process, before all else,
            so that the peak of memory is its own.
        text_tokens: before each picture, where the planner stands in for the data of ``weak``: so
            many that as many pictures fill its rows.
        output: folder of runs and of what was measured, which further calls add to.
        ledger: folder to record all that was measured so far; empty records nothing.
    """

    curve: TrainConfig
    weak: TrainConfig
    curve_stages: tuple[int, ...] = ()
    weak_stage: int = 0
    text_tokens: int = 64
    output: str = "runs/scaling"
    ledger: str = ""


def run(config: TrainConfig, folder: Path) -> list[Any]:
    """Train; give the lines of the log."""
    if is_main():
        shutil.rmtree(folder, ignore_errors=True)
    train(replace(config, run_dir=str(folder)), draw=lambda *_: None, save=lambda *_: None)
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "learning_rate" in line]


def measure(config: ScalingConfig) -> dict[str, dict[str, Any]]:
    """Measure the stages that were asked for on this number of GPUs."""
    num, folder = world_size(), Path(config.output)
    found: dict[str, dict[str, Any]] = {}
    if config.weak_stage:
        found[f"{num} x ZeRO {config.weak_stage}"] = measure_weak(config, folder / "weak")
    for stage in config.curve_stages:
        engine = replace(config.curve.engine, zero_stage=cast(Any, stage))
        curve = replace(config.curve, engine=engine)
        name = f"{num} x ZeRO {stage}"
        found.setdefault(name, {})["losses"] = losses(run(curve, folder / "curve"))
        if num == stage == 1:  # how far rounding alone takes a curve: one batch in two halves
            data = replace(curve.data, micro_rows=curve.data.rows_per_step // 2)
            halves = run(replace(curve, data=data), folder / "halves")
            found["1 x, two micro-batches"] = {"losses": losses(halves)}
    return found


def measure_weak(config: ScalingConfig, folder: Path) -> dict[str, float]:
    """Speed and memory of one stage, and what the planner says that it needs."""
    num, rows = world_size(), config.weak.data.rows_per_step
    engine = replace(config.weak.engine, zero_stage=cast(Any, config.weak_stage))
    data = replace(config.weak.data, rows_per_step=num * rows)
    lines = run(replace(config.weak, engine=engine, data=data), folder)
    peak = torch.zeros(1, device=choose_device(engine.device))
    if peak.is_cuda:
        peak += torch.cuda.max_memory_allocated() / 2**30
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    warm = lines[len(lines) // 3 :]
    estimate = planner(config).memory(engine, num_gpus=num, micro_rows=rows)
    return {
        "tokens_per_second": median(line["tokens_per_second"] for line in warm),
        "mfu": median(line.get("mfu", 0.0) for line in warm),
        "peak_gib": float(peak),
        "planned_gib": estimate.total / 2**30,
    }


def planner(config: ScalingConfig) -> Planner:
    """The planner of the run whose memory is measured."""
    weak = config.weak
    assert weak.data.world is not None
    return Planner(
        weak,
        special=TextTokenizer.from_pretrained_file(weak.text_tokenizer).special_ids,
        image_tokenizer=load_image_tokenizer(weak.image_tokenizer),
        image_size=weak.data.world.image_size,
        text_tokens=config.text_tokens,
    )


def losses(lines: list[Any]) -> list[list[float]]:
    return [[line["text"], line["next_token"]] for line in lines]


def tables(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the guide shows: losses and speed beside one GPU's, memory beside what was planned."""
    curves, speed, memory = {}, {}, {}
    curve = {name: torch.tensor(x["losses"]) for name, x in found.items() if "losses" in x}
    for name, values in sorted(curve.items()):
        gap = (values - curve.get("1 x ZeRO 1", values)).abs()
        curves[name] = {
            "text loss, last step": round(float(values[-1, 0]), 4),
            "picture loss, last step": round(float(values[-1, 1]), 4),
            "largest difference": float(gap.max()),
            "mean difference": float(gap.mean()),
        }
    weak = {name: x for name, x in found.items() if "peak_gib" in x}
    for name, value in sorted(weak.items()):
        num, _, zero = name.partition(" x ")
        alone = weak.get(f"1 x {zero}", weak.get("1 x ZeRO 1", value))["tokens_per_second"]
        speed[name] = {
            "tokens/s": round(value["tokens_per_second"]),
            "efficiency": round(value["tokens_per_second"] / int(num) / alone, 4),
            "MFU": round(value["mfu"], 4),
        }
        memory[name] = {
            "measured peak GiB of a GPU": round(value["peak_gib"], 2),
            "planned": round(value["planned_gib"], 2),
            "planned / measured": round(value["planned_gib"] / (value["peak_gib"] or 1), 3),
        }
    return {"losses": curves, "speed": speed, "memory": memory}


def main() -> None:
    config = load_config(ScalingConfig, sys.argv[1:], choices=CHOICES)
    choose_device(config.curve.engine.device)
    output = Path(config.output)
    found = measure(config)
    if is_main():
        path = output / "measured.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for name, values in found.items():
            known[name] = known.get(name, {}) | values
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        figures = tables(known)
        print(json.dumps(figures, indent=1))
        if config.ledger:
            command = "train/scaling_h100.sh"
            write_ledger("scaling", command=command, seed=0, figures=figures, folder=config.ledger)
    shutdown()


if __name__ == "__main__":
    main()
