"""Compare finished runs that differ in how they draw: one row a way to draw, over its seeds.

A *way* is an objective of a model that has no other, or ``joint, NAME`` for one of several. Legend
of the folder: ``ROOT/RUN`` holds ``config.yaml`` and ``log.jsonl`` of training,
``ROOT/scores/RUN/NAME`` what was measured of it: ``worldeval/``, ``stories/``; and
``ROOT/scores/RUN/drawing.json`` what drawing costs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

from unimm.config import read_yaml
from unimm.evaluation.picture_references import CEILING_AFTER
from unimm.evaluation.picture_summary import MEAN

SCORES = "scores"
Row = dict[str, Any]
Table = dict[str, Row]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One objective of one run.

    Attributes:
        way: how it draws, see above.
        objective: its name.
        run: name of the run.
        seed: of the training.
        folder: of its scores.
        training: what training took.
        worldeval: summary of WorldEval; empty where it was not measured.
        stories: summary of StoryEval, likewise.
        drawing: what drawing costs, likewise.
    """

    way: str
    objective: str
    run: str
    seed: int
    folder: Path
    training: Row
    worldeval: Row = field(default_factory=dict[str, Any], repr=False)
    stories: Row = field(default_factory=dict[str, Any], repr=False)
    drawing: Row = field(default_factory=dict[str, Any])

    @property
    def lacking(self) -> list[str]:
        """What was not measured."""
        return [name for name in ("worldeval", "stories", "drawing") if not getattr(self, name)]


def read_entries(root: str | Path) -> list[Entry]:
    """Read every run below a folder that has begun to train, in the order of names.

    Raises:
        ValueError: there is none.
    """
    root = Path(root)
    folders = sorted(path.parent for path in root.glob("*/config.yaml"))
    runs = [x for x in folders if (x / "log.jsonl").is_file() and "model" in _config(x)]
    entries = [entry for run in runs for entry in _entries_of(root, run)]
    if not entries:
        raise ValueError(f"no run of train/pretrain.py in {root}: give the folder of the runs")
    return entries


def _config(run: Path) -> dict[str, Any]:
    return read_yaml(run / "config.yaml")


def _entries_of(root: Path, run: Path) -> list[Entry]:
    config, scores = _config(run), root / SCORES / run.name
    names = [str(x["name"]) for x in config["model"].get("objectives", [{"name": "next_token"}])]
    training = read_training(run, config)
    if not training:
        return []
    costs = _read(scores / "drawing.json").get("figures", {}).get("drawing", {})
    return [
        Entry(
            way=name if len(names) == 1 else f"joint, {name}",
            objective=name,
            run=run.name,
            seed=int(config["seed"]),
            folder=scores / name,
            training=training,
            worldeval=_read(scores / name / "worldeval" / "summary.json"),
            stories=_read(scores / name / "stories" / "summary.json"),
            drawing=costs.get(name, {}),
        )
        for name in names
    ]


def read_training(run: Path, config: Mapping[str, Any]) -> Row:
    """What a run's log says of the work that it took; empty before its first line of losses."""
    log = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    lines = [json.loads(line) for line in log]
    losses = [line for line in lines if "flops" in line]
    if not losses:
        return {}
    last, data = losses[-1], config["data"]
    row: Row = {
        "progress": last["progress"],
        "parameters": lines[0].get("parameters"),
        "steps": last["step"],
        "positions": last["step"] * data["rows_per_step"] * data["row_length"],
        "pictures seen": last["images"],
        "petaflops": float(f"{last['flops'] / 1e15:.4g}"),
        "minutes": round(last["seconds"] / 60, 2),
        "tokens/s": round(median(line["tokens_per_second"] for line in losses)),
    }
    peak = last.get("peak_memory_gib")
    return row | ({"memory_gib": round(peak, 1)} if peak else {})


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def compare(
    entries: Sequence[Entry],
    *,
    expected: Sequence[str] = (),
    targets: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """Make all tables; a way with several seeds is their mean, with the lowest and highest.

    Args:
        entries: what was read.
        expected: ways that a whole comparison has.
        targets: task -> split -> share of the ceiling that is aimed at.

    Returns:
        Tables of rows by way (``tasks`` by task): ``worldeval``, ``tasks``, ``share_of_ceiling``,
        ``stories``, ``distribution``, ``training``, ``drawing``, ``price_of_joint``; ``runs``,
        every seed for itself; ``missing``, what was not measured; ``short``, what falls short of
        the targets.
    """
    ways: dict[str, list[Entry]] = {}
    for entry in entries:
        ways.setdefault(entry.way, []).append(entry)
    order = [way for way in expected if way in ways]
    ways = {way: ways[way] for way in [*order, *(x for x in ways if x not in expected)]}
    shares = _tasks(ways, lambda rows: round(mean(map(share_of_ceiling, rows)), 3))
    return {
        "worldeval": _filled(ways, _worldeval_row),
        "tasks": _tasks(ways, told),
        "share_of_ceiling": shares,
        "stories": _filled(ways, _story_row),
        "distribution": _filled(ways, _distribution_row),
        "training": _filled(ways, lambda group: _mean_row([x.training for x in group])),
        "drawing": _filled(ways, lambda group: _mean_row([x.drawing for x in group])),
        "price_of_joint": _price(ways),
        "runs": [_run_row(entry) for entry in entries],
        "missing": find_missing(entries, expected),
        "short": find_short(shares, targets or {}),
    }


def find_missing(entries: Sequence[Entry], expected: Sequence[str]) -> list[str]:
    """Name what a whole comparison would have, in words."""
    lines = [f"{way}: no run" for way in expected if way not in {x.way for x in entries}]
    for entry in entries:
        if entry.lacking:
            lines.append(f"{entry.way} (run {entry.run}): no {', '.join(entry.lacking)}")
        if entry.training["progress"] < 1:
            lines.append(f"{entry.way} (run {entry.run}): {entry.training['progress']:.0%} trained")
    return lines


def find_short(shares: Table, targets: Mapping[str, Mapping[str, float]]) -> Table:
    """Rows of the shares of the ceiling that lie below their target, each with it."""
    table: Table = {}
    for tag, splits in targets.items():
        for split, target in splits.items():
            row = shares.get(f"{tag}, {split}", {})
            below = {way: share for way, share in row.items() if share < target}
            if below:
                table[f"{tag}, {split}"] = {"target": target, **below}
    return table


def share_of_ceiling(row: Mapping[str, Any]) -> float:
    """Score over that of true renders through the same image tokenizer."""
    return row["score"]["value"] / max(row[CEILING_AFTER]["value"], 1e-9)


def told(rows: Sequence[Mapping[str, Any]], *, field: str = "score") -> str:
    """Mean over seeds with the mean of their 95 % intervals."""
    value, low, high = (mean(row[field][x] for row in rows) for x in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _filled(ways: Mapping[str, list[Entry]], make: Callable[[list[Entry]], Row]) -> Table:
    rows = {way: make(group) for way, group in ways.items()}
    return {way: row for way, row in rows.items() if row}


def _worldeval_row(group: list[Entry]) -> Row:
    scored = [x.worldeval["splits"] for x in group if x.worldeval]
    row: Row = {}
    for split in dict.fromkeys(split for splits in scored for split in splits):
        means = [splits[split][MEAN] for splits in scored]
        values = [x["score"]["value"] for x in means]
        row[split] = told(means)
        row[f"{split}, of ceiling"] = round(mean(map(share_of_ceiling, means)), 3)
        if len(values) > 1:
            row[f"{split}, seeds"] = f"{min(values):.3f} to {max(values):.3f}"
    return row | {"runs": len(scored)} if row else {}


def _tasks(ways: Mapping[str, list[Entry]], cell: Callable[[list[Row]], Any]) -> Table:
    """Task by task, a column a way."""
    table: Table = {}
    for way, group in ways.items():
        found: dict[str, list[Row]] = {}
        for splits in (x.worldeval["splits"] for x in group if x.worldeval):
            for split, rows in splits.items():
                for tag, row in rows.items():
                    found.setdefault(f"{tag}, {split}", []).append(row)
        for name, rows in found.items():
            table.setdefault(name, {})[way] = cell(rows)
    return table


def _story_row(group: list[Entry]) -> Row:
    """The set that introduces a character by words: its whole look on later pages."""
    row: Row = {}
    for split in ("validation", "heldout"):
        for when in ("introduction", "alone"):
            sets = [x.stories.get("sets", {}).get(f"{split} words", {}) for x in group]
            rates = [x["scores"][when] for x in sets if when in x.get("scores", {})]
            if rates:
                row[f"{split}, {when}"] = told(rates, field="all")
    return row


def _distribution_row(group: list[Entry]) -> Row:
    """Distances of the pictures as a set, and their floor: true renders at the same number."""
    rows = [x.worldeval.get("distribution", {}) for x in group if x.worldeval]
    found: Row = {}
    for kind, word in (("generated", ""), ("ceiling", "floor of ")):
        for key in dict.fromkeys(key for x in rows for key in x if key.startswith(f"{kind},")):
            split = key.split(", ")[1]
            measures = [x[key] for x in rows if key in x]
            for name in measures[0]:
                if name.startswith("frechet"):
                    found[f"{word}{name}, {split}"] = round(mean(x[name] for x in measures), 4)
    return found


def _mean_row(rows: Sequence[Row]) -> Row:
    rows = [row for row in rows if row]
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {
        name: x[0] if len(set(x)) == 1 else float(f"{mean(x):.4g}")
        for name, x in found.items()
        if x
    }


def _price(ways: Mapping[str, list[Entry]]) -> Table:
    """What one model for all ways loses against one of each: differences of the means."""
    table: Table = {}
    for way, group in ways.items():
        joint = ways.get(f"joint, {way}", [])
        pair = [[x.worldeval["splits"] for x in y if x.worldeval] for y in (group, joint)]
        for split in dict.fromkeys(s for x in pair[0] for s in x) if all(pair) else ():
            alone, shared = (mean(x[split][MEAN]["score"]["value"] for x in y) for y in pair)
            row = {"alone": round(alone, 3), "joint": round(shared, 3)}
            table[f"{way}, {split}"] = row | {"lower by": round(alone - shared, 3)}
    return table


def _run_row(entry: Entry) -> Row:
    means = {x: y[MEAN]["score"] for x, y in entry.worldeval.get("splits", {}).items() if MEAN in y}
    facts = entry.worldeval.get("facts", {}).get("generator", {})
    return {
        "way": entry.way,
        "run": entry.run,
        "seed": entry.seed,
        "training": entry.training,
        "worldeval": means,
        "sampling": facts.get("sampling", {}),
    }
