"""Compare runs that differ in how they draw: pictures a second, and what their training took.

python eval/benchmark_objectives.py --runs runs/objectives/next_token runs/objectives/masked
"""

import json
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

import unimm
from unimm.config import read_yaml
from unimm.ledger import write_ledger
from unimm.pipeline import Pipeline

CAPTION = "A red balloon."


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Which runs to compare."""

    runs: tuple[Path, ...]
    """Run folders of train/pretrain.py, each with its model and last checkpoint."""
    batch_sizes: tuple[int, ...] = (1, 64)
    """Pictures drawn at once."""
    repeats: int = 3
    """The fastest counts."""
    device: str | None = None
    """By default the GPU if there is one."""
    name: str = "objectives"
    """The ledger's name."""
    ledger: str = "docs/results"
    """Folder of the ledger."""


def seconds(pipeline: Pipeline, batch_size: int, repeats: int) -> float:
    """Time of the fastest of some calls, after one that compiles and records."""
    times: list[float] = []
    for number in range(repeats + 1):
        started = time.perf_counter()
        unimm.generate_image(pipeline, [CAPTION] * batch_size, seed=number)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def training(run: Path) -> dict[str, float | int]:
    """What the run's last checkpoint says of the work done."""
    state = json.loads(max(run.glob("checkpoints/step_*/state.json")).read_text(encoding="utf-8"))
    data = read_yaml(run / "config.yaml")["data"]
    return {
        "steps": state["step"],
        "positions": state["step"] * data["rows_per_step"] * data["row_length"],
        "pictures seen": state["images"],
        "petaflops": float(f"{state['flops'] / 1e15:.3g}"),
        "minutes": round(state["seconds"] / 60, 1),
    }


def main(arguments: Arguments) -> None:
    table: dict[str, dict[str, float | int]] = {}
    for run in arguments.runs:
        pipeline = unimm.load_pipeline(run / "model", device=arguments.device)
        speeds = {
            f"pictures/s, batch {size}": round(size / seconds(pipeline, size, arguments.repeats), 2)
            for size in arguments.batch_sizes
        }
        table[run.name] = training(run) | speeds
        print(run.name, table[run.name], flush=True)
    write_ledger(
        arguments.name,
        command=shlex.join(["python", *sys.argv]),
        seed=0,
        figures={"objectives": table},
        folder=arguments.ledger,
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
