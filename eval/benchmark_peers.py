"""Time unimm and other programs' own code in turns, at the same sizes, on one GPU.

    python eval/benchmark_peers.py --sources peers
    python eval/benchmark_peers.py --sources peers --rows next_token head --turns 5

``docs/performance.md`` says what the folder of sources must hold. Every row runs in a process of
its own, the other program in another, and is in the ledger as soon as it is measured.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from unimm.distributed import shutdown
from unimm.ledger import RESULTS, read_ledger, write_ledger
from unimm.training.comparison_rows import ROWS, Setting
from unimm.training.engine import choose_device


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is compared."""

    sources: Path
    """Folder of the other programs' code."""
    rows: tuple[str, ...] = tuple(ROWS)
    """Which rows, in this order."""
    turns: int = 3
    """Times that each program's turn comes."""
    seconds: float = 480
    """No row goes on after this time."""
    tiny: bool = False
    """Small models, to try the comparison out."""
    device: str = "auto"
    """By default the GPU if there is one."""
    name: str = "peers"
    """Of the ledger."""
    output: Path = RESULTS
    """Folder of the ledger."""


def measure(arguments: Arguments, row: str) -> None:
    """Time one row in this process."""
    setting = Setting(
        sources=arguments.sources,
        device=choose_device(arguments.device),
        turns=arguments.turns,
        tiny=arguments.tiny,
        batch_sizes=(1, 2) if arguments.tiny else (1, 64),
    )
    command = f"python eval/benchmark_peers.py --sources peers --turns {arguments.turns}"
    for table, label, found in ROWS[row](setting):
        print(f"{table}: {label}: {found}", flush=True)
        known = arguments.output / f"{arguments.name}.json"
        figures = read_ledger(arguments.name, arguments.output)["figures"] if known.exists() else {}
        figures.setdefault(table, {})[label] = found
        write_ledger(
            arguments.name, command=command, seed=1, figures=figures, folder=arguments.output
        )


def main(arguments: Arguments) -> None:
    if len(arguments.rows) == 1:
        measure(arguments, arguments.rows[0])
        return shutdown()
    started, failed = time.monotonic(), list[str]()
    for row in arguments.rows:
        left = arguments.seconds - (time.monotonic() - started)
        command = [sys.executable, *sys.argv, "--rows", row]
        try:
            subprocess.run(command, check=True, timeout=max(left, 1))
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            failed.append(f"{row}: {error}")
        print(f"-- {row}, {time.monotonic() - started:.0f} s", flush=True)
    if failed:
        raise SystemExit("\n".join(failed))


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
