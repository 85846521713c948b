"""Probe a model: what do its features know of classes, depth, regions and points?

python eval/run_probe.py eval/configs/probes/classify.yaml --model storyworld
"""

import shlex
import sys
import time

import torch
from rich.console import Console
from rich.table import Table

from unimm.config import load_config
from unimm.data.labelled.registry import LABELLED_SETS
from unimm.data.labelled.sets import LabelledConfig
from unimm.ledger import write_ledger
from unimm.probes.probe import ProbeConfig, ProbeResult
from unimm.probes.registry import PROBES
from unimm.probes.run import ProbeRunConfig, run_probe

CHOICES = {ProbeConfig: PROBES, LabelledConfig: LABELLED_SETS}


def show(result: ProbeResult, title: str) -> None:
    """Print the table, controls in grey and whether each is beaten."""
    columns = list(dict.fromkeys(name for row in result.table.values() for name in row))
    table = Table("", *columns, f"beaten in {result.score}", title=title)
    verdicts = {name: "yes" if is_beaten else "NO" for name, is_beaten in result.beaten().items()}
    verdicts |= dict.fromkeys(result.ceilings, "ceiling")
    for name, row in result.table.items():
        style = "dim" if name in result.controls else "bold"
        figures = (str(row.get(column, "")) for column in columns)
        table.add_row(name, *figures, verdicts.get(name, ""), style=style)
    Console().print(table)


def main() -> None:
    config = load_config(ProbeRunConfig, sys.argv[1:], choices=CHOICES)
    started = time.monotonic()
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU
    result = run_probe(
        config, tell=lambda line: print(f"{time.monotonic() - started:5.0f} s  {line}", flush=True)
    )
    show(result, f"{config.probe.name}: {config.model}")
    print(f"{time.monotonic() - started:.0f} s; wrote {config.output}/results.json")
    if config.ledger:
        figures = {"table": result.table, "beaten": result.beaten(), **result.figures}
        command = shlex.join(["python", *sys.argv])
        path = write_ledger(
            config.ledger_name,
            command=command,
            seed=config.seed,
            figures=figures,
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
