"""What a training run's own log says: the work that it took, its last losses, how they fell."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

Row = dict[str, Any]
Curve = list[tuple[float, float]]
"""Counted petaflops and a loss, at falling shares of a run's whole work."""

_VALIDATION = "validation/"
_NUM_POINTS = 11


def read_log(run: Path) -> list[Row]:
    """Lines of ``log.jsonl`` in the order of steps.

    Steps that a broken run did twice, from its last checkpoint on, are read once.
    """
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    found: dict[tuple[int, bool], Row] = {}
    for line in map(json.loads, lines):
        found[line["step"], "flops" in line] = line
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def training_row(log: Sequence[Row], config: Mapping[str, Any]) -> Row:
    """The work that a run took; empty before its first line of losses."""
    losses = [line for line in log if "flops" in line]
    if not losses:
        return {}
    last, data = losses[-1], config["data"]
    row: Row = {
        "progress": last["progress"],
        "parameters": log[0].get("parameters"),
        "steps": last["step"],
        "positions": last["step"] * data["rows_per_step"] * data["row_length"],
        "pictures seen": last["images"],
        "petaflops": float(f"{last['flops'] / 1e15:.4g}"),
        "minutes": round(last["seconds"] / 60, 2),
        "tokens/s": round(median(line["tokens_per_second"] for line in losses)),
    }
    peak = last.get("peak_memory_gib")
    return row | ({"memory_gib": round(peak, 1)} if peak else {})


def last_losses(log: Sequence[Row], objective: str) -> Row:
    """Losses of the averaged weights on validation documents: ``pictures`` and ``text``, in nats.

    A denoised picture's loss is a mean square. Empty where no evaluation ended.
    """
    lines = [line for line in log if f"{_VALIDATION}{objective}" in line]
    if not lines:
        return {}
    names = {"pictures": objective, "text": "text"}
    return {word: round(lines[-1][f"{_VALIDATION}{x}"], 4) for word, x in names.items()}


def learning_curve(log: Sequence[Row], objective: str) -> Curve:
    """Training loss of an objective after the whole of a run's work, and shares of it.

    Each point has the square root of one half of the work of the one before. Between two lines of
    the log the loss is a straight line over the logarithm of the work, so runs that logged at
    other steps have points at the same shares.
    """
    seen = [(line["flops"], line[objective]) for line in log if line.get(objective) is not None]
    seen = [(flops, loss) for flops, loss in seen if flops > 0]
    curve: Curve = []
    for number in range(_NUM_POINTS if seen else 0):
        flops = seen[-1][0] * 2 ** (-number / 2)
        if flops < seen[0][0]:
            break
        curve.append((float(f"{flops / 1e15:.4g}"), round(_between(seen, flops), 4)))
    return curve


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """Value at ``x``, which lies within the points."""
    after = next((i for i, point in enumerate(points) if point[0] >= x), len(points) - 1)
    (x1, y1), (x0, y0) = points[after], points[max(after - 1, 0)]
    if x0 == x1:
        return y1
    return y0 + (y1 - y0) * math.log(x / x0) / math.log(x1 / x0)
