"""What a judge that is asked in words says of a generator, with all that limits its word.

A picture that is missing scores 0, as everywhere. A picture that the judge gave no answer to is
left out of the score; how many there are, and the score if all of them were wrong or right, stand
beside it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from unimm.evaluation.asking_judge import JUDGE_FAILED, Known
from unimm.evaluation.intervals import bootstrap_rate
from unimm.evaluation.picture_results import Result

ALL = "all"


def summarise_asked(
    results: Sequence[Result],
    references: Mapping[str, Sequence[Result]],
    *,
    known: Known,
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the summary.

    Args:
        results: of the generator's pictures.
        references: name -> results of pictures that tell what a score means.
        known: verdicts of a judge that knows the truth, where there are any.
        facts: what else the summary must say.

    Returns:
        Plain data: ``facts``, ``tasks``: a row for all and one each split and task, and
        ``agreement`` of the judge with the truth; None where that is not known.

    Raises:
        ValueError: there is no reference: a bare score says nothing.
    """
    if not references or not all(references.values()):
        raise ValueError("no summary without references: a score means nothing alone")
    names = list(dict.fromkeys(task_name(x) for x in results))
    tasks: dict[str, dict[str, Any]] = {}
    for name in (ALL, *names):
        own = [x for x in results if name in (ALL, task_name(x))]
        scores = {"score": _score(own)}
        for reference, judged in references.items():
            scores[reference] = _score([x for x in judged if name in (ALL, task_name(x))])
        tasks[name] = scores | _counts(own)
    everything = [*results, *(x for judged in references.values() for x in judged)]
    return {"facts": dict(facts), "tasks": tasks, "agreement": agreement(everything, known)}


def agreement(results: Sequence[Result], known: Known) -> dict[str, Any] | None:
    """How often the judge says what is true, and how far above chance (Cohen's kappa).

    Args:
        results: the judge's, in any mixture.
        known: the truth.

    Returns:
        ``pictures, accuracy, kappa`` and the four counts; None if no truth is known. Kappa is None
        where one side says the same of all pictures.
    """
    counts: Counter[tuple[bool, bool]] = Counter()
    for result in results:
        truth = known.get((result.request.id, result.sample.digest))
        if truth is not None and not result.verdict.problem:
            counts[result.verdict.correct, truth.correct] += 1
    total = sum(counts.values())
    if not total:
        return None
    same = (counts[True, True] + counts[False, False]) / total
    said = (counts[True, True] + counts[True, False]) / total
    true = (counts[True, True] + counts[False, True]) / total
    by_luck = said * true + (1 - said) * (1 - true)
    return {
        "pictures": total,
        "accuracy": round(same, 4),
        "kappa": round((same - by_luck) / (1 - by_luck), 4) if by_luck < 1 else None,
        "rightly correct": counts[True, True],
        "rightly incorrect": counts[False, False],
        "wrongly correct": counts[True, False],
        "wrongly incorrect": counts[False, True],
    }


def is_unanswered(result: Result) -> bool:
    """Whether the judge failed, and not the picture."""
    return result.verdict.problem.startswith(JUDGE_FAILED)


def task_name(result: Result) -> str:
    """Task and split of a picture, as the summary calls its row."""
    return f"{result.request.tag}, {result.request.split}"


def _counts(results: Sequence[Result]) -> dict[str, Any]:
    """Pictures, what is missing or unanswered, and what that can do to the score."""
    unanswered = [x for x in results if is_unanswered(x)]
    kinds = Counter(x.verdict.problem.removeprefix(JUDGE_FAILED).split(":")[0] for x in unanswered)
    right = sum(x.verdict.score for x in results)
    return {
        "prompts": len({x.request.id for x in results}),
        "pictures": len(results),
        "missing": sum(x.sample.picture is None for x in results),
        "unanswered": len(unanswered),
        "failures": dict(sorted(kinds.items())),
        "if unanswered were wrong": round(right / len(results), 4),
        "if unanswered were right": round((right + len(unanswered)) / len(results), 4),
    }


def _score(results: Sequence[Result]) -> dict[str, float | int] | None:
    """Rate over prompts of what was answered; None where nothing was."""
    right: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for result in results:
        if not is_unanswered(result):
            right[result.request.id] += result.verdict.score  # pyright: ignore[reportArgumentType]
            total[result.request.id] += 1
    if not total:
        return None
    return bootstrap_rate([right[x] for x in total], list(total.values())).to_json()
