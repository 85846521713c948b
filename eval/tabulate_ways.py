"""WorldEval by each of a model's ways to draw, side by side: one table of the ledger from several.

python eval/tabulate_ways.py worldeval worldeval_transfusion worldeval_next_token
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from unimm.ledger import RESULTS, read_ledger, write_ledger

BESIDE = ("ceiling", "ceiling after the tokenizer")
"""Columns that are the same for all ways: the prompts are."""


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is tabulated."""

    ledgers: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Of eval/score_images.py, of the same prompts; the first gives the ceilings."""
    name: str = "worldeval_ways"
    """Of the ledger that is written."""
    folder: Path = RESULTS
    """Of the ledgers."""


def main(arguments: Arguments) -> None:
    entries = [read_ledger(name, arguments.folder) for name in arguments.ledgers]
    requests = {entry["figures"]["facts"]["requests"]["hash"] for entry in entries}
    if len(requests) != 1:
        raise SystemExit(f"{arguments.ledgers} are of different prompts: {sorted(requests)}")
    rows: dict[str, dict[str, object]] = {}
    for entry in entries:
        way = entry["figures"]["facts"]["generator"]["objective"]
        for task, row in entry["figures"]["table"].items():
            rows.setdefault(task, {})[way] = row["score"]
    for task, row in entries[0]["figures"]["table"].items():
        rows[task] |= {column: row[column] for column in BESIDE}
    path = write_ledger(
        arguments.name,
        command=shlex.join(["python", *sys.argv]),
        seed=entries[0]["seed"],
        hardware=entries[0]["hardware"],
        figures={"table": rows},
        folder=arguments.folder,
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
