"""Two generators side by side: which picture of a pair follows the prompt better?

Every pair is asked in both orders; see ``unimm.judges.pairwise``. A picture that is missing loses
without a question, and the same picture twice is a tie.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unimm.evaluation.asking_judge import Known, ask_in_order
from unimm.evaluation.intervals import bootstrap_rate
from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_requests import PictureRequest
from unimm.judges.judge import Judge
from unimm.judges.pairwise import (
    FIRST,
    SECOND,
    TIE,
    PairVerdict,
    pair_verdict,
    preference_queries,
)

Rows = Sequence[Sequence[Sample]]


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """One judged pair.

    Attributes:
        request: what both pictures were drawn for.
        number: which pictures of the request.
        ours: the one picture.
        theirs: the other.
        verdict: ``first`` is ours.
        said: the judge's words in both orders; empty where it was not asked.
        note: why it was not asked.
    """

    request: PictureRequest
    number: int
    ours: Sample
    theirs: Sample
    verdict: PairVerdict
    said: tuple[str | None, ...] = ()
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """One line of ``results.jsonl``."""
        return {
            "id": self.request.id,
            "sample": self.number,
            "split": self.request.split,
            "tag": self.request.tag,
            "prompt": self.request.prompt,
            **asdict(self.verdict),
            "said": list(self.said),
            "note": self.note,
        }


def judge_pairs(
    answerer: Judge,
    requests: Sequence[PictureRequest],
    ours: Rows,
    theirs: Rows,
    *,
    known: Known | None = None,
) -> list[PairResult]:
    """Judge pairs of pictures of the same requests.

    Args:
        answerer: who is asked.
        requests: what was asked for.
        ours: pictures of each request.
        theirs: the other generator's, as many.
        known: verdicts on both, which the oracle answers from.
    """
    pairs = [
        (request, number, *pair)
        for request, row, other in zip(requests, ours, theirs, strict=True)
        for number, pair in enumerate(zip(row, other, strict=True))
    ]
    settled = [_settle(a, b) for *_, a, b in pairs]
    queries = [
        query
        for (request, number, a, b), given in zip(pairs, settled, strict=True)
        if given is None and a.picture is not None and b.picture is not None
        for query in preference_queries(
            f"{request.id}/{number}",
            request.prompt,
            a.picture,
            b.picture,
            truth=_better(known or {}, request, a, b),
        )
    ]
    replies = iter(ask_in_order(answerer, queries))
    results = []
    for (request, number, a, b), given in zip(pairs, settled, strict=True):
        said: tuple[str | None, ...] = ()
        if given is not None:
            verdict, note = given
        else:
            straight, swapped = next(replies), next(replies)
            verdict, note = pair_verdict(straight, swapped), ""
            said = (straight.text, swapped.text)
        results.append(
            PairResult(
                request=request,
                number=number,
                ours=a,
                theirs=b,
                verdict=verdict,
                said=said,
                note=note,
            )
        )
    return results


def summarise_pairs(results: Sequence[PairResult], *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Wins, losses and ties with intervals over prompts, and how far the judge can be trusted.

    Args:
        results: all pairs.
        facts: what else the summary must say.

    Returns:
        Plain data. ``score`` is wins and half of the ties; ``contradictions`` the share of pairs
        whose answer changed with the order; ``first place`` the share of the verdicts for a
        picture that went to the one shown first: a fair judge has .5.

    Raises:
        ValueError: no pair has a verdict.
    """
    decided = [x for x in results if x.verdict.winner is not None]
    asked = [x for x in decided if not x.note]
    if not decided:
        raise ValueError(f"none of {len(results)} pairs has a verdict; see the failures")
    worth = {FIRST: 1.0, TIE: 0.5, SECOND: 0.0}
    failures = [x.verdict.failure.kind for x in results if x.verdict.failure is not None]
    summary: dict[str, Any] = {
        "facts": dict(facts),
        "pairs": len(results),
        "not asked": sum(bool(x.note) for x in results),
        "failed": len(failures),
        "failures": {kind: failures.count(kind) for kind in sorted(set(failures))},
        "score": _rate(decided, lambda x: worth[str(x.verdict.winner)]),
    }
    for name, winner in (("wins", FIRST), ("losses", SECOND), ("ties", TIE)):
        summary[name] = _rate(decided, lambda x, winner=winner: float(x.verdict.winner == winner))
    if asked:
        summary["contradictions"] = _rate(asked, lambda x: float(x.verdict.is_contradiction))
    if any(x.verdict.num_first + x.verdict.num_second for x in asked):
        summary["first place"] = _rate(
            asked,
            lambda x: x.verdict.num_first,
            lambda x: x.verdict.num_first + x.verdict.num_second,
        )
    return summary


def _settle(ours: Sample, theirs: Sample) -> tuple[PairVerdict, str] | None:
    """The verdict on a pair that nobody need be asked about, and why; else None."""
    if ours.picture is not None and theirs.picture is not None:
        is_same = ours.digest == theirs.digest
        return (PairVerdict(winner=TIE), "the same picture") if is_same else None
    if ours.picture is not None:
        return PairVerdict(winner=FIRST), f"theirs: {theirs.problem}"
    if theirs.picture is not None:
        return PairVerdict(winner=SECOND), f"ours: {ours.problem}"
    return PairVerdict(winner=TIE), f"ours: {ours.problem}; theirs: {theirs.problem}"


def _better(known: Known, request: PictureRequest, ours: Sample, theirs: Sample) -> str | None:
    """Which of two pictures truly follows the prompt better, if both verdicts are known."""
    first, second = (known.get((request.id, x.digest)) for x in (ours, theirs))
    if first is None or second is None:
        return None
    if first.score == second.score:
        return TIE
    return FIRST if first.score > second.score else SECOND


def _rate(
    results: Sequence[PairResult],
    right: Callable[[PairResult], float],
    total: Callable[[PairResult], float] = lambda _: 1.0,
) -> dict[str, float | int]:
    """A share with its interval over prompts."""
    rights: dict[str, float] = {}
    totals: dict[str, float] = {}
    for result in results:
        name = result.request.id
        rights[name] = rights.get(name, 0.0) + right(result)
        totals[name] = totals.get(name, 0.0) + total(result)
    return bootstrap_rate(list(rights.values()), list(totals.values())).to_json()
