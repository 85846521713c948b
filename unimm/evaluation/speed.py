"""A model's speed in tables: batches of pictures, and a picture behind longer contexts."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from unimm.evaluation.ceilings import Ceilings, measure_ceilings
from unimm.evaluation.drawing_cost import context_cost, drawing_cost
from unimm.evaluation.launches import count_launches
from unimm.evaluation.line_chart import line_chart
from unimm.evaluation.roofline import least_seconds
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline

Row = dict[str, float]


def measure_speed(
    pipeline: Pipeline,
    sampling: SamplingConfig,
    ceilings: Ceilings,
    *,
    batch_size: int,
    repeats: int,
) -> Row:
    """Draw batches of one size.

    Args:
        pipeline: the model, drawing by one of its objectives.
        sampling: how.
        ceilings: of its device.
        batch_size: pictures drawn at once.
        repeats: batches that are timed.

    Returns:
        ``pictures/s`` with decoding, ``tokens/s`` (positions that the trunk ran for the pictures,
        guidance not counted twice) and ``ms a step`` without; ``roofline share``: the least time of
        trunk and head over the time without decoding; and what ``Cost.row`` gives.
    """
    options = vars(sampling)
    cost = drawing_cost(pipeline, batch_size=batch_size, repeats=repeats, **options)
    drawing = max(cost.seconds - cost.decode_seconds, 1e-9)
    num_steps, drawn = len(cost.work.new), sum(cost.work.drawing) * batch_size
    return cost.row() | {
        "tokens/s": round(drawn / drawing, 1),
        "ms a step": float(f"{1000 * drawing / num_steps:.4g}"),
        "decode ms": float(f"{1000 * cost.decode_seconds:.4g}"),
        "roofline share": float(
            f"{least_seconds(pipeline, cost, sampling, ceilings) / drawing:.3g}"
        ),
    }


def add_launches(rows: Mapping[int, Row], pipeline: Pipeline, sampling: SamplingConfig) -> None:
    """Add what a GPU's profiler counts to ``measure_speed`` of batch sizes.

    When all is timed: recordings are slower in a process where the profiler has run.
    """
    for size, row in rows.items():
        steps, options = int(row["trunk steps"]), vars(sampling)
        row |= count_launches(pipeline, batch_size=size, trunk_steps=steps, **options)


@dataclass(kw_only=True)
class SpeedReport:
    """Collects what was measured of one or several models.

    Attributes:
        batches: model -> batch size -> ``measure_speed``.
        contexts: model -> name -> ``context_cost``.
        ceilings: of the device, once the first model was measured.
    """

    batches: dict[str, dict[int, Row]] = field(default_factory=dict[str, dict[int, Row]])
    contexts: dict[str, dict[str, Row]] = field(default_factory=dict[str, dict[str, Row]])
    ceilings: Ceilings | None = None

    def add(
        self,
        name: str,
        pipeline: Pipeline,
        sampling: SamplingConfig,
        *,
        batch_sizes: Iterable[int],
        context: Iterable[int] = (),
        repeats: int = 3,
        with_launches: bool = False,
        tell: Callable[[str], None] = print,
    ) -> None:
        """Measure a model.

        Args:
            name: of its rows.
            pipeline: the model, drawing by one of its objectives.
            sampling: how.
            batch_sizes: pictures drawn at once.
            context: numbers of earlier pictures behind which one more is drawn.
            repeats: calls that are timed.
            with_launches: count kernels and launches on a GPU; models that are measured after it
                by the same process seem slower than they are.
            tell: told of every row.
        """
        if self.ceilings is None:
            dtype = pipeline.model.text_embedding.weight.dtype
            self.ceilings = measure_ceilings(pipeline.device, dtype)
            tell(json.dumps(self.figures()["ceilings"]))
        options = vars(sampling)
        for size in batch_sizes:
            row = measure_speed(pipeline, sampling, self.ceilings, batch_size=size, repeats=repeats)
            self.batches.setdefault(name, {})[size] = row
            tell(f"{name}, batch {size}: {json.dumps(row)}")
        for count in context:
            row = context_cost(pipeline, num_earlier=count, repeats=repeats, **options)
            self.contexts.setdefault(name, {})[f"{count} pictures before"] = row
            tell(f"{name}, {count} pictures before: {json.dumps(row)}")
        if with_launches:
            add_launches(self.batches[name], pipeline, sampling)
            tell(f"{name}, launches: {json.dumps(self.batches[name])}")

    def figures(self) -> dict[str, Any]:
        """For the ledger: a table each of ``drawing``, ``batches``, ``context``, ``ceilings``.

        ``drawing`` has a line for a model, which ``eval/compare_objectives.py`` shows beside
        scores.
        """
        found: dict[str, Any] = {"drawing": {x: _line(row) for x, row in self.batches.items()}}
        for name, tables in (("batches", self.batches), ("context", self.contexts)):
            prefix = "batch " if name == "batches" else ""
            rows = {
                f"{x}, {prefix}{y}": row for x, table in tables.items() for y, row in table.items()
            }
            found |= {name: rows} if rows else {}
        if self.ceilings:
            found["ceilings"] = self.ceilings.row()
        return found

    def charts(self) -> dict[str, str]:
        """Name of a chart -> SVG: pictures a second by batch size, time of a step by context."""
        speed = {
            name: [(float(size), row["pictures/s"]) for size, row in rows.items()]
            for name, rows in self.batches.items()
        }
        length = {
            name: [(row["positions before"], row["ms a step"]) for row in rows.values()]
            for name, rows in self.contexts.items()
        }
        found = {
            "batches": line_chart(
                speed, title="Drawing", x_label="pictures at once", y_label="pictures a second"
            )
        }
        if length:
            found["context"] = line_chart(
                length,
                title="Drawing behind a context",
                x_label="positions before the picture",
                y_label="ms a step of the trunk",
            )
        return found


def _line(batches: Mapping[int, Row]) -> Row:
    """A model's pictures a second at each batch size, and what hardly depends on it."""
    last = batches[[*batches][-1]]
    row = {f"pictures/s, batch {size}": x["pictures/s"] for size, x in batches.items()}
    same = ("trunk steps", "head evaluations", "memory_gb")
    return row | {name: last[name] for name in same if name in last}
