"""The summary of a run: every score with its interval, its ceilings, its baselines and failures.

Without ceilings and baselines there is no summary: a bare score says nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unimm.evaluation.intervals import Rate, bootstrap_mean, bootstrap_rate
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, RANDOM, REFERENCES
from unimm.evaluation.picture_requests import DESCRIPTIVE
from unimm.evaluation.picture_results import Result
from unimm.evaluation.question_graph import CATEGORIES

MEAN = "mean"
"""The row of a split that is the mean of its tasks; the descriptive one stands apart."""

Results = Sequence[Result]
Groups = dict[tuple[str, str], list[Result]]


def summarise_pictures(
    results: Results, references: Mapping[str, Results | None], *, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Make the summary.

    Args:
        results: of the generator's pictures.
        references: name of ``REFERENCES`` -> results of its pictures. None is allowed for the
            tokenizer's ceiling only: a generator without one.
        facts: what else the summary must say: requests, generator, judge, seeds.

    Returns:
        Plain data: ``facts``, ``failed``, ``splits``: split -> task -> its row; ``by questions``:
        split -> number of a prompt's questions -> share of pictures that are all right; and
        ``table``, the rows for people.

    Raises:
        ValueError: a reference is missing, or was not judged on the same requests.
    """
    check_references(results, references)
    own = _grouped(results)
    others = {name: _grouped(x) for name, x in references.items() if x is not None}
    splits: dict[str, dict[str, Any]] = {}
    for split, tag in own:
        row = _row(own[split, tag], {name: x[split, tag] for name, x in others.items()})
        splits.setdefault(split, {})[tag] = row
    for split, rows in splits.items():
        tags = [tag for tag in rows if tag != DESCRIPTIVE]
        if tags:
            rows[MEAN] = _mean_row(split, tags, own, others)
    return {
        "facts": dict(facts),
        "failed": sum(bool(x.verdict.problem) for x in results),
        "splits": splits,
        "by questions": {split: _by_questions(split, results) for split in splits},
        "table": _table(splits),
    }


def check_references(results: Results, references: Mapping[str, Results | None]) -> None:
    """Refuse a run that could not be told from chance.

    Raises:
        ValueError: see ``summarise_pictures``.
    """
    lacking = [
        name
        for name in REFERENCES
        if name not in references or (not references[name] and name != CEILING_AFTER)
    ]
    if lacking:
        raise ValueError(
            f"no summary without {' and '.join(lacking)}: a score means nothing alone; judge "
            "those pictures too (unimm.evaluation.picture_references makes them)"
        )
    asked = {x.request.id for x in results}
    for name, judged in references.items():
        if judged is not None and {x.request.id for x in judged} != asked:
            raise ValueError(f"{name!r} was judged on other requests than the generator's pictures")


def _grouped(results: Results) -> Groups:
    groups: Groups = {}
    for result in results:
        groups.setdefault((result.request.split, result.request.tag), []).append(result)
    return groups


def _row(own: Results, others: Mapping[str, Results]) -> dict[str, Any]:
    """A task of a split."""
    row: dict[str, Any] = {
        "prompts": len({x.request.id for x in own}),
        "pictures": len(own),
        "failed": sum(bool(x.verdict.problem) for x in own),
        "score": bootstrap_rate(*_counts(own, "score")).to_json(),
        "nothing else": bootstrap_rate(*_counts(own, "is_exact")).to_json(),
    }
    if any(x.request.questions for x in own):
        row["questions"] = _passed(own).to_json()
    if row["pictures"] > row["prompts"]:
        hits = {x.request.id: 0.0 for x in own}
        hits |= {x.request.id: 1.0 for x in own if x.verdict.correct}
        row["any picture"] = bootstrap_rate(list(hits.values()), [1.0] * len(hits)).to_json()
    for name, results in others.items():
        row[name] = bootstrap_rate(*_counts(results, "score")).to_json()
    if own[0].request.tag == DESCRIPTIVE:
        row["categories"] = _categories(own)
    return row | {"share of the way": _share(row)}


def _mean_row(
    split: str, tags: Sequence[str], own: Groups, others: Mapping[str, Groups]
) -> dict[str, Any]:
    """GenEval's overall score: every task weighs the same."""

    def mean(groups: Groups, field: str) -> dict[str, float | int]:
        return bootstrap_mean([_counts(groups[split, tag], field) for tag in tags]).to_json()

    results = [x for tag in tags for x in own[split, tag]]
    row: dict[str, Any] = {
        "prompts": len({x.request.id for x in results}),
        "pictures": len(results),
        "failed": sum(bool(x.verdict.problem) for x in results),
        "score": mean(own, "score"),
        "nothing else": mean(own, "is_exact"),
    }
    row |= {name: mean(groups, "score") for name, groups in others.items()}
    return row | {"share of the way": _share(row)}


def _counts(results: Results, field: str) -> tuple[list[float], list[float]]:
    """Right and total of each independent unit."""
    right: dict[str, float] = {}
    total: dict[str, float] = {}
    for result in results:
        name = _unit(result)
        right[name] = right.get(name, 0.0) + float(getattr(result.verdict, field))
        total[name] = total.get(name, 0.0) + 1
    return list(right.values()), list(total.values())


def _unit(result: Result) -> str:
    """Prompts that demand the same in other words are one unit: they succeed or fail together."""
    return repr(result.request.metadata.include)


def _share(row: Mapping[str, Any]) -> float | None:
    """(score - chance) / (best - chance): what the judge's errors and luck leave of the score."""
    chance, best = row[RANDOM]["value"], row[CEILING]["value"]
    return round((row["score"]["value"] - chance) / (best - chance), 4) if best > chance else None


def _passed(results: Results, category: str = "") -> Rate:
    """Share of the questions (of a category) that pass, parents included; partial credit."""
    right: dict[str, float] = {}
    total: dict[str, float] = {}
    for result in results:
        name = _unit(result)
        asked = [x.number for x in result.request.questions if category in ("", x.category)]
        passed = sum(result.verdict.answers.get(number, False) for number in asked)
        right[name] = right.get(name, 0.0) + passed
        total[name] = total.get(name, 0.0) + len(asked)
    return bootstrap_rate(list(right.values()), list(total.values()))


def _categories(results: Results) -> dict[str, dict[str, float | int]]:
    asked = {x.category for result in results for x in result.request.questions}
    return {name: _passed(results, name).to_json() for name in CATEGORIES if name in asked}


def _by_questions(split: str, results: Results) -> dict[str, dict[str, float | int]]:
    """All-right share by how much a prompt says (GenEval 2 counts atoms so)."""
    groups: dict[int, list[Result]] = {}
    for result in results:
        if result.request.split == split and result.request.questions:
            groups.setdefault(len(result.request.questions), []).append(result)
    return {
        str(number): bootstrap_rate(*_counts(groups[number], "correct")).to_json()
        for number in sorted(groups)
    }


def _table(splits: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row a task and split, as the ledger shows it; the means first."""
    table: dict[str, dict[str, Any]] = {}
    for is_mean in (True, False):
        for split, rows in splits.items():
            for tag, row in rows.items():
                if (tag == MEAN) != is_mean:
                    continue
                score = row["score"]
                cells = {
                    "score": f"{score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}]",
                    "nothing else": round(row["nothing else"]["value"], 3),
                }
                cells |= {x: round(row[x]["value"], 3) for x in REFERENCES if x in row}
                cells |= {"prompts": row["prompts"], "failed": row["failed"]}
                table[f"{tag}, {split}"] = cells
    return table
