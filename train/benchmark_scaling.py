"""Compare ZeRO stages and numbers of GPUs: losses of one batch, speed and memory of growing ones.

torchrun --nproc_per_node 1 train/benchmark_scaling.py train/configs/scaling.yaml --stages 1 3
torchrun --nproc_per_node 2 train/benchmark_scaling.py train/configs/scaling.yaml --ledger out
"""

import gc
import json
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist

from unimm.config import load_config
from unimm.distributed import is_main, shutdown, world_size
from unimm.ledger import write_ledger
from unimm.training.config import TrainConfig
from unimm.training.engine import choose_device
from unimm.training.loop import train
from unimm.training.resume import CHOICES


@dataclass(frozen=True, kw_only=True)
class ScalingConfig:
    """What is measured.

    Attributes:
        curve: run whose losses are compared; its global batch is the same on any number of GPUs.
        weak: run whose speed and memory are measured; its rows are those of one GPU.
        stages: of ZeRO.
        output: folder of runs and of what was measured, which further calls add to.
        ledger: folder to record all that was measured so far; empty records nothing.
    """

    curve: TrainConfig
    weak: TrainConfig
    stages: tuple[int, ...] = (1, 2, 3)
    output: str = "runs/scaling"
    ledger: str = ""


def run(config: TrainConfig, name: str, stage: int, **data: Any) -> tuple[list[Any], float]:
    """Train; give the lines of the log and the most memory that a GPU needed, in GiB."""
    folder = Path(config.run_dir) / name
    if is_main():
        shutil.rmtree(folder, ignore_errors=True)
    gc.collect()  # an engine before this one
    device = choose_device(config.engine.device)
    peak = torch.zeros(1, device=device)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        peak -= torch.cuda.memory_allocated() / 2**30  # DeepSpeed keeps parts of earlier engines
    config = replace(
        config,
        run_dir=str(folder),
        # ZeRO 3 cannot be compiled; on one GPU it is compared with itself.
        engine=replace(
            config.engine, zero_stage=stage, compile=config.engine.compile and stage < 3
        ),
        data=replace(config.data, **data),
    )
    train(config, draw=lambda *_: None, save=lambda *_: None)
    if device.type == "cuda":
        peak += torch.cuda.max_memory_allocated() / 2**30
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    lines = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if "learning_rate" in line], float(peak)


def measure(config: ScalingConfig) -> dict[str, Any]:
    """Measure all stages on this number of GPUs."""
    num = world_size()
    found: dict[str, Any] = {}
    for stage in config.stages:
        rows = {"rows_per_step": num * config.weak.data.rows_per_step}
        lines, peak = run(config.weak, f"weak_{num}_{stage}", stage, **rows)
        warm = lines[len(lines) // 3 :]
        found[f"{num} x ZeRO {stage}"] = {
            "tokens_per_second": median(line["tokens_per_second"] for line in warm),
            "mfu": median(line.get("mfu", 0.0) for line in warm),
            "peak_gib": peak,
            "losses": losses(run(config.curve, f"curve_{num}_{stage}", stage)[0]),
        }
    if num == 1:  # how far rounding alone takes a curve: the same batch in two halves
        halves = {"micro_rows": config.curve.data.rows_per_step // 2}
        lines, _ = run(config.curve, "curve_1_halves", config.stages[0], **halves)
        found["rounding"] = {"losses": losses(lines)}
    return found


def losses(lines: list[Any]) -> list[list[float]]:
    return [[line["text"], line["next_token"]] for line in lines]


def tables(found: dict[str, Any]) -> dict[str, Any]:
    """What the guide shows: losses beside ZeRO 1 on one GPU, speed beside one GPU's."""
    base = found["1 x ZeRO 1"]
    exact = torch.tensor(base["losses"])
    curves, speed = {}, {}
    for name, value in found.items():
        gap = (torch.tensor(value["losses"]) - exact).abs()
        label = "1 x, two micro-batches" if name == "rounding" else name
        curves[label] = {
            "text loss, last step": value["losses"][-1][0],
            "picture loss, last step": value["losses"][-1][1],
            "largest difference": float(gap.max()),
            "mean difference": float(gap.mean()),
        }
        if name != "rounding":
            num, _, zero = name.partition(" x ")
            alone = found.get(f"1 x {zero}", base)["tokens_per_second"]
            speed[name] = {
                "tokens/s": round(value["tokens_per_second"]),
                "efficiency": round(value["tokens_per_second"] / int(num) / alone, 4),
                "MFU": round(value["mfu"], 4),
                "peak GiB of a GPU": round(value["peak_gib"], 2),
            }
    return {"losses": curves, "speed": speed}


def main() -> None:
    config = load_config(ScalingConfig, sys.argv[1:], choices=CHOICES)
    choose_device(config.curve.engine.device)
    output = Path(config.output)
    moved = {
        part: replace(getattr(config, part), run_dir=str(output)) for part in ("curve", "weak")
    }
    found = measure(replace(config, **moved))
    if is_main():
        path = output / "measured.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.write_text(json.dumps(known | found, indent=1) + "\n", encoding="utf-8")
        figures = tables(known | found)
        print(json.dumps(figures, indent=1))
        if config.ledger:
            command = "train/scaling_h100.sh"
            write_ledger("scaling", command=command, seed=0, figures=figures, folder=config.ledger)
    shutdown()


if __name__ == "__main__":
    main()
