"""Measure how fast a model draws by each of its objectives: drawing.json.

python eval/benchmark_objectives.py runs/compare/joint/model --output runs/compare/scores/joint
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from unimm.evaluation.drawing_cost import drawing_cost
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured."""

    model: tyro.conf.Positional[Path]
    """Folder of a model."""
    output: Path
    """Folder to write to."""
    batch_sizes: tuple[int, ...] = (1, 64)
    """Pictures drawn at once."""
    repeats: int = 3
    """The fastest counts."""
    device: str | None = None
    """By default the GPU if there is one."""


def main(arguments: Arguments) -> None:
    pipeline = load_pipeline(arguments.model, device=arguments.device)
    table: dict[str, dict[str, float]] = {}
    for name in pipeline.model.config.heads:
        row: dict[str, float] = {}
        for size in arguments.batch_sizes:
            found = drawing_cost(pipeline.draw_by(name), batch_size=size, repeats=arguments.repeats)
            row[f"pictures/s, batch {size}"] = found.pop("pictures/s")
            row |= found
        table[name] = row
        print(name, row, flush=True)
    path = write_ledger(
        "drawing",
        command=shlex.join(["python", *sys.argv]),
        seed=0,
        figures={"drawing": table},
        folder=arguments.output,
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
