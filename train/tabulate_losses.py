"""How a run's losses fell, as a table of the ledger: does it need more minutes?

python train/tabulate_losses.py runs/storyworld_flagship --name flagship
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unimm.config import read_yaml
from unimm.evaluation.comparison_log import learning_curve, read_log
from unimm.ledger import RESULTS, write_ledger

EVERY = 2
"""One point of a curve in so many: each row then has half of the work of the one below."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is tabulated."""

    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a training run, with its ``log.jsonl``."""
    name: str
    """Of the ledger."""
    ledger: Path = RESULTS
    """Where it is written."""
    hardware: str = ""
    """What the run was made on; empty names this machine."""


def main(arguments: Arguments) -> None:
    log = read_log(arguments.run)
    last = next(line for line in reversed(log) if "flops" in line)
    names = [name for name in last if f"validation/{name}" in log[-1] and name in last]
    rows: dict[str, dict[str, float]] = {}
    for name in names:
        for petaflops, loss in reversed(learning_curve(log, name)[::EVERY]):
            rows.setdefault(f"after {petaflops:.3g} petaflops", {})[name] = loss
    path = write_ledger(
        arguments.name,
        command=shlex.join(["python", *sys.argv]),
        seed=read_yaml(arguments.run / "config.yaml")["seed"],
        hardware=arguments.hardware or None,
        figures={"losses": rows},
        folder=arguments.ledger,
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
