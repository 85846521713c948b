"""Compare finished runs that differ in how they draw: one row a way to draw, over its seeds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from unimm.evaluation.comparison_entries import JOINT, Entry
from unimm.evaluation.comparison_log import Row
from unimm.evaluation.picture_references import CEILING_AFTER
from unimm.evaluation.picture_summary import MEAN

Table = dict[str, Row]
_SAME_WORK = 0.02  # runs end with the step that passes the work asked for


def compare(
    entries: Sequence[Entry],
    *,
    expected: Sequence[str] = (),
    targets: Mapping[str, Mapping[str, float]] | None = None,
    trunk: str = "",
    trunks: Sequence[str] = (),
) -> dict[str, Any]:
    """Make all tables; a way with several seeds is their mean, with the lowest and highest.

    Args:
        entries: what was read.
        expected: ways that a whole comparison has.
        targets: task -> split -> share of the ceiling that is aimed at.
        trunk: whose runs are compared; may be empty where all runs have the same.
        trunks: that a whole comparison has; see ``unimm.evaluation.comparison_scaling``.

    Returns:
        ``trunk``; tables of rows by way (``tasks`` by task): ``worldeval``, ``tasks``,
        ``share_of_ceiling``, ``stories``, ``distribution``, ``training``, ``drawing``,
        ``price_of_joint``; ``runs``, every seed of every trunk for itself; ``missing``, what was
        not measured; ``unequal``, why rows may not be compared; ``short``, what falls short of the
        targets.

    Raises:
        ValueError: no run has the trunk, or runs have several and none is named.
    """
    chosen = of_trunk(entries, trunk)
    ways = by_way(chosen, expected)
    shares = _tasks(ways, lambda rows: round(mean(map(share_of_ceiling, rows)), 3))
    return {
        "trunk": chosen[0].trunk,
        "worldeval": _filled(ways, worldeval_row),
        "tasks": _tasks(ways, told),
        "share_of_ceiling": shares,
        "stories": _filled(ways, _story_row),
        "distribution": _filled(ways, _distribution_row),
        "training": _filled(ways, lambda group: mean_row([x.training for x in group])),
        "drawing": _filled(ways, lambda group: mean_row([x.drawing for x in group])),
        "price_of_joint": _price(ways),
        "runs": [_run_row(entry) for entry in entries],
        "missing": find_missing(entries, expected, trunk=chosen[0].trunk, trunks=trunks),
        "unequal": find_unequal(entries),
        "short": find_short(shares, targets or {}),
    }


def by_way(entries: Sequence[Entry], expected: Sequence[str] = ()) -> dict[str, list[Entry]]:
    """Runs of each way, expected ones first; unfinished runs only where a way has no other."""
    ways: dict[str, list[Entry]] = {}
    for entry in entries:
        ways.setdefault(entry.way, []).append(entry)
    order = [way for way in expected if way in ways]
    order += [way for way in ways if way not in expected]
    return {way: [x for x in ways[way] if x.is_finished] or ways[way] for way in order}


def of_trunk(entries: Sequence[Entry], trunk: str) -> list[Entry]:
    """Runs of one trunk; see ``compare``."""
    found = sorted({x.trunk for x in entries})
    chosen = [x for x in entries if x.trunk == trunk or not trunk]
    if not chosen or (not trunk and len(found) > 1):
        wanted = f"no run has a trunk of {trunk}" if trunk else "runs have several trunks"
        raise ValueError(f"{wanted}: choose one of {', '.join(found)} as trunk")
    return chosen


def find_missing(
    entries: Sequence[Entry], expected: Sequence[str], *, trunk: str, trunks: Sequence[str] = ()
) -> list[str]:
    """Name what a whole comparison would have, in words."""
    there = {(x.way, x.trunk) for x in entries}
    lines = [f"{way}: no run" for way in expected if (way, trunk) not in there]
    alone = [way for way in expected if not way.startswith(JOINT)]
    for other in trunks:
        absent = [way for way in alone if other != trunk and (way, other) not in there]
        lines += [f"{other}: no run of {', '.join(absent)}"] if absent else []
    for entry in entries:
        measures = ("worldeval", "stories", "drawing")[: 3 if entry.trunk == trunk else 1]
        lacking = [name for name in measures if not getattr(entry, name)]
        if lacking:
            lines.append(f"{entry.way} (run {entry.run}): no {', '.join(lacking)}")
        if not entry.is_finished:
            lines.append(f"{entry.way} (run {entry.run}): {entry.training['progress']:.0%} trained")
    return lines


def find_unequal(entries: Sequence[Entry]) -> list[str]:
    """Name in words what differs between runs and should not.

    Work, image tokenizer, and the code that timed their drawing.
    """
    lines: list[str] = []
    work = _work_by_run([x for x in entries if x.is_finished])
    if work and max(work.values()) > min(work.values()) * (1 + _SAME_WORK):
        low, high = min(work, key=work.__getitem__), max(work, key=work.__getitem__)
        lines.append(f"work: {work[low]:.4g} petaflops a way in {low}, {work[high]:.4g} in {high}")
    tokenizers: dict[str, list[str]] = {}
    timed_by: dict[str, list[str]] = {}
    for entry in entries:
        facts = entry.worldeval.get("facts", {}).get("generator", {})
        if "image_tokenizer" in facts:
            tokenizers.setdefault(facts["image_tokenizer"][:8], []).append(entry.run)
        if entry.drawing:
            timed_by.setdefault(entry.timed_by, []).append(entry.run)
    for title, found in (("image tokenizers", tokenizers), ("code that timed drawing", timed_by)):
        if len(found) > 1:
            sides = [f"{', '.join(sorted({*runs}))}: {name}" for name, runs in found.items()]
            lines.append(f"{title}: {'; '.join(sides)}")
    return lines


def _work_by_run(entries: Sequence[Entry]) -> dict[str, float]:
    """Counted petaflops of each run for one way: a joint model's are shared among its ways."""
    num_ways = Counter(x.run for x in entries)
    return {x.run: x.training["petaflops"] / num_ways[x.run] for x in entries}


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


def mean_rate(rows: Sequence[Mapping[str, Any]], *, field: str = "score") -> dict[str, float]:
    """Mean over seeds with the mean of their 95 % intervals."""
    return {x: mean(row[field][x] for row in rows) for x in ("value", "low", "high")}


def told(rows: Sequence[Mapping[str, Any]], *, field: str = "score") -> str:
    """``mean_rate`` as a cell of a table."""
    rate = mean_rate(rows, field=field)
    return f"{rate['value']:.3f} [{rate['low']:.3f}, {rate['high']:.3f}]"


def _filled(ways: Mapping[str, list[Entry]], make: Callable[[list[Entry]], Row]) -> Table:
    rows = {way: make(group) for way, group in ways.items()}
    return {way: row for way, row in rows.items() if row}


def worldeval_row(group: Sequence[Entry]) -> Row:
    """Mean score of each split over seeds, its share of the ceiling, lowest and highest seed."""
    scored = [x.worldeval["splits"] for x in group if x.worldeval]
    row: Row = {}
    for split in dict.fromkeys(split for splits in scored for split in splits):
        means = [splits[split][MEAN] for splits in scored]
        row[split] = told(means)
        row[f"{split}, of ceiling"] = round(mean(map(share_of_ceiling, means)), 3)
        row |= _seeds(split, means)
    return row | {"runs": len(scored)} if row else {}


def _seeds(name: str, rows: Sequence[Mapping[str, Any]], *, field: str = "score") -> Row:
    """The lowest and the highest of several seeds."""
    values = [row[field]["value"] for row in rows]
    low, high = min(values), max(values)
    return {f"{name}, seeds": f"{low:.3f} to {high:.3f}"} if len(values) > 1 else {}


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
                row |= _seeds(f"{split}, {when}", rates, field="all")
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


def mean_row(rows: Sequence[Row]) -> Row:
    """Mean of each column over the rows that have it."""
    rows = [row for row in rows if row]
    names = dict.fromkeys(name for row in rows for name in row)
    found = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return {
        name: x[0] if len(set(x)) == 1 else float(f"{mean(x):.4g}")
        for name, x in found.items()
        if x
    }


def _price(ways: Mapping[str, list[Entry]]) -> Table:
    """What one model for all ways loses against one of each: differences of the means.

    ``joint's work`` is the model's counted work for one way over that of the model of this way.
    """
    table: Table = {}
    work = _work_by_run([x for group in ways.values() for x in group])
    for way, group in ways.items():
        joint = ways.get(f"{JOINT}{way}", [])
        pair = [[x.worldeval["splits"] for x in y if x.worldeval] for y in (group, joint)]
        share = _mean_work(joint, work) / _mean_work(group, work) if all(pair) else 0.0
        for split in dict.fromkeys(s for x in pair[0] for s in x) if all(pair) else ():
            alone, shared = (mean_rate([x[split][MEAN] for x in y]) for y in pair)
            table[f"{way}, {split}"] = {
                "alone": round(alone["value"], 3),
                "joint": round(shared["value"], 3),
                "lower by": difference(alone, shared),
                "joint's work": round(share, 2),
            }
    return table


def _mean_work(group: Sequence[Entry], work: Mapping[str, float]) -> float:
    return mean(work[x.run] for x in group)


def difference(one: Mapping[str, float], other: Mapping[str, float]) -> str:
    """``one`` minus ``other`` with its 95 % interval: Newcombe (1998), method 10.

    The distances of either end add up as squares. Both were asked the same prompts, which makes
    the true interval narrower.
    """
    value = one["value"] - other["value"]
    down = math.hypot(one["value"] - one["low"], other["high"] - other["value"])
    up = math.hypot(one["high"] - one["value"], other["value"] - other["low"])
    return f"{value:.3f} [{value - down:.3f}, {value + up:.3f}]"


def _run_row(entry: Entry) -> Row:
    means = {x: y[MEAN]["score"] for x, y in entry.worldeval.get("splits", {}).items() if MEAN in y}
    facts = entry.worldeval.get("facts", {}).get("generator", {})
    return {
        "way": entry.way,
        "run": entry.run,
        "trunk": entry.trunk,
        "seed": entry.seed,
        "training": entry.training,
        "worldeval": means,
        "sampling": facts.get("sampling", {}),
    }
