"""How each way to draw grows with its trunk: losses and WorldEval at equal counted work."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from unimm.evaluation.comparison import by_way, mean_row, worldeval_row
from unimm.evaluation.comparison_entries import Entry
from unimm.evaluation.comparison_log import Curve
from unimm.evaluation.line_chart import chart_grid, line_chart

_WORK = ("parameters", "petaflops", "minutes", "pictures seen")
_SCORE = "seen, of ceiling"


def compare_trunks(entries: Sequence[Entry], expected: Sequence[str] = ()) -> dict[str, Any]:
    """Make a row of each way and trunk, where a way has finished runs of two trunks or more.

    Args:
        entries: what was read, of all trunks.
        expected: ways in the order of the table.

    Returns:
        ``scaling``, the table, the smallest trunk first: work, losses on validation documents,
        WorldEval; ``learning_curves``, way -> trunk -> petaflops and training loss. Seeds are
        averaged. Both are empty where all have one trunk.
    """
    table: dict[str, Any] = {}
    curves: dict[str, dict[str, Curve]] = {}
    for way, group in by_way([x for x in entries if x.is_finished], expected).items():
        trunks: dict[str, list[Entry]] = {}
        for entry in sorted(group, key=_width_and_depth):
            trunks.setdefault(entry.trunk, []).append(entry)
        if len(trunks) < 2:
            continue
        for trunk, seeds in trunks.items():
            work = mean_row([x.training for x in seeds])
            losses = mean_row([x.losses for x in seeds])
            table[f"{way}, {trunk}"] = {
                **{name: work[name] for name in _WORK if name in work},
                **{f"loss of {name}": loss for name, loss in losses.items()},
                **worldeval_row(seeds),
                "runs": len(seeds),
            }
        curves[way] = {trunk: _mean_curve([x.curve for x in y]) for trunk, y in trunks.items()}
    return {"scaling": table, "learning_curves": curves}


def scaling_chart(figures: Mapping[str, Any]) -> str:
    """Draw a panel of losses over counted work for each way, and one of WorldEval over parameters.

    At equal work all trunks have one place on the axis of work, so scores stand over parameters.

    Args:
        figures: see ``compare_trunks``.

    Returns:
        SVG; empty where there is nothing to compare.
    """
    panels = [
        line_chart(
            trunks, title=way, x_label="counted petaflops", y_label="training loss of pictures"
        )
        for way, trunks in figures["learning_curves"].items()
    ]
    lines: dict[str, list[tuple[float, float]]] = {}
    for name, row in figures["scaling"].items():
        if _SCORE in row:
            lines.setdefault(name.rsplit(", ", 1)[0], []).append((row["parameters"], row[_SCORE]))
    if lines:
        millions = {way: [(x / 1e6, y) for x, y in line] for way, line in lines.items()}
        panels.append(
            line_chart(
                millions,
                title=f"WorldEval, seen, after {_work(figures['scaling'])} petaflops",
                x_label="million parameters",
                y_label="share of the tokenizer's ceiling",
                is_share=True,
            )
        )
    return chart_grid(panels) if panels else ""


def _width_and_depth(entry: Entry) -> list[int]:
    return [int(number) for number in entry.trunk.split("x")]


def _work(table: Mapping[str, Mapping[str, Any]]) -> str:
    found = sorted(row["petaflops"] for row in table.values())
    low, high = f"{found[0]:.2g}", f"{found[-1]:.2g}"
    return low if low == high else f"{low} to {high}"


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over seeds at the same shares of the work."""
    return [
        (float(f"{mean(x for x, _ in points):.4g}"), round(mean(y for _, y in points), 4))
        for points in zip(*curves, strict=False)
    ]
