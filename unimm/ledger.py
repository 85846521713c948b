"""The ledger of measured figures: scripts write it, README and docs quote nothing else.

A script that measured something calls ``write_ledger``; a Markdown page marks where a table goes:

    <!-- ledger: world speed -->
    <!-- /ledger -->

and ``render_tables`` fills the block from ``docs/results/world.json``, key ``speed``.
"""

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
"""Where the ledger lies, seen from the root of the repository."""

_BLOCK = re.compile(
    r"(?P<start><!-- ledger: (?P<name>\S+) (?P<key>\S+) -->\n).*?(?P<end><!-- /ledger -->)",
    re.DOTALL,
)


def write_ledger(
    name: str,
    *,
    command: str,
    seed: int,
    figures: Mapping[str, Any],
    folder: str | Path = RESULTS,
    hardware: str | None = None,
) -> Path:
    """Record what a script measured, with all that is needed to measure it again.

    Args:
        name: the file's name without ``.json``; lower case letters, digits and ``_``.
        command: the command line that measured, from the root of the repository.
        seed: the seed that it ran with.
        figures: nested dicts and lists of numbers and strings. What a table shall show is a flat
            dict, a dict of rows ``{row: {column: value}}``, or ``{"columns": [...],
            "rows": [[...], ...]}``.
        folder: where ledgers are kept.
        hardware: what it ran on; found out when left away.

    Returns:
        The file written.

    Raises:
        ValueError: the name is not a plain name, or a figure is NaN, infinite or not JSON.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise ValueError(f"ledger name {name!r}: use lower case letters, digits and '_' only")
    entry = {
        "command": command,
        "seed": seed,
        "hardware": hardware or describe_hardware(),
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "figures": figures,
    }
    try:
        text = _lay_out(json.loads(json.dumps(entry, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise ValueError(f"ledger {name!r} holds a figure that is not JSON: {error}") from error
    path = Path(folder) / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _lay_out(value: Any, depth: int = 0) -> str:
    """What JSON holds as text that shows a row of figures as a line."""
    items: list[Any] = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(value, (dict, list)) or not any(isinstance(x, (dict, list)) for x in items):
        return json.dumps(value, ensure_ascii=False)
    lines = [_lay_out(item, depth + 1) for item in items]
    if isinstance(value, dict):
        names = [json.dumps(name, ensure_ascii=False) for name in value]
        lines = [f"{name}: {line}" for name, line in zip(names, lines, strict=True)]
    first, last = "{}" if isinstance(value, dict) else "[]"
    start = "\n" + " " * (depth + 1)
    return first + start + f",{start}".join(lines) + start[:-1] + last


def read_ledger(name: str, folder: str | Path = RESULTS) -> dict[str, Any]:
    """Read one ledger: ``command, seed, hardware, date, commit, figures``.

    Raises:
        ValueError: there is no such ledger.
    """
    path = Path(folder) / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no ledger at {path}; run the script that measures {name!r} first")
    return json.loads(path.read_text(encoding="utf-8"))


def describe_hardware(device: str | None = None) -> str:
    """Name the chip that figures were measured on.

    Args:
        device: "cpu" or "cuda"; by default the GPU where there is one.
    """
    import torch

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    is_linux = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if is_linux else os.cpu_count() or 1
    return f"{_cpu_model()}, {num_cores} core{'s' if num_cores > 1 else ''}"


def render_tables(markdown: str, folder: str | Path = RESULTS) -> str:
    """Fill every ledger block of a Markdown text; everything else stays as it is.

    Args:
        markdown: text with blocks ``<!-- ledger: NAME KEY -->`` ... ``<!-- /ledger -->``. KEY is a
            path of keys joined by dots, such as ``speed`` or ``scores.seen``.
        folder: where ledgers are kept.

    Returns:
        The text, with each block holding its table and a line on where the figures come from.

    Raises:
        ValueError: a block is not closed, or names a ledger or key that does not exist.
    """
    num_marks = len(re.findall(r"^<!-- ledger:", markdown, re.MULTILINE))
    if num_marks != len(_BLOCK.findall(markdown)) or num_marks != markdown.count(
        "<!-- /ledger -->"
    ):
        raise ValueError(
            "a ledger block is malformed: write '<!-- ledger: NAME KEY -->' and, on a later line, "
            "'<!-- /ledger -->'"
        )

    def fill(block: re.Match[str]) -> str:
        entry = read_ledger(block["name"], folder)
        table = _table(_lookup(entry["figures"], block["key"], block["name"]))
        return f"{block['start']}\n{table}\n\n{_source(entry)}\n\n{block['end']}"

    return _BLOCK.sub(fill, markdown)


def _lookup(figures: Any, key: str, name: str) -> Any:
    for step in key.split("."):
        if not isinstance(figures, Mapping) or step not in figures:
            known = ", ".join(figures) if isinstance(figures, Mapping) else "nothing below it"
            raise ValueError(f"ledger {name!r} has no figure {key!r} ({step!r} not in: {known})")
        figures = figures[step]
    return figures


def _table(figures: Any) -> str:
    if not isinstance(figures, Mapping):
        return _grid(["figure"], [[figures]])
    if set(figures) == {"columns", "rows"}:
        return _grid(figures["columns"], figures["rows"])
    if all(isinstance(row, Mapping) for row in figures.values()):
        columns = list(dict.fromkeys(column for row in figures.values() for column in row))
        rows = [[name, *(row.get(x, "") for x in columns)] for name, row in figures.items()]
        return _grid(["", *columns], rows)
    return _grid(["figure", "value"], [[name, value] for name, value in figures.items()])


def _grid(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [list(columns), ["---"] * len(columns), *([_cell(x) for x in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Write numbers as a person reads them: 12,345 and 0.1235, never 1.235e+04."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|")
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _source(entry: Mapping[str, Any]) -> str:
    return f"*`{entry['command']}`, seed {entry['seed']}, {entry['hardware']}, {entry['date']}*"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _commit() -> str:
    """The revision of the code that measured, marked when files were changed since."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--exclude", "*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
