"""Judges that are asked in words, as judges of pictures: faithful or not, rated, or questioned.

A reply that failed is a problem of the judge, not of the picture: its verdict says ``judge:`` and
``unimm.evaluation.asked_summary`` leaves it out and counts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from rich.progress import track

from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_judge import Verdict, judge_answers
from unimm.evaluation.picture_requests import PictureRequest, hash_text
from unimm.evaluation.picture_results import read_verdicts
from unimm.judges import drawbench, yes_no
from unimm.judges.judge import Failure, Judge, Reply, ask_all
from unimm.judges.query import Query
from unimm.judges.rating import HIGHEST, rating_query
from unimm.judges.rating import INSTRUCTION as RATING_INSTRUCTION

Known = Mapping[tuple[str, str], Verdict]
"""Request and digest of a picture -> the verdict of a judge that knows the truth."""
Pictures = Sequence[Image.Image]

JUDGE_FAILED = "judge: "
"""How a problem begins that is the judge's own."""


@dataclass(frozen=True, kw_only=True)
class AskingJudge:
    """A ``PictureJudge`` that puts queries to somebody.

    Attributes:
        name: who is asked, and by which protocol.
        fingerprint: of both and of the wording.
        decide: requests and their pictures to verdicts.
        accuracy: see ``PictureJudge``.
    """

    name: str
    fingerprint: str
    decide: Callable[[Sequence[PictureRequest], Pictures], list[Verdict]]
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, requests: Sequence[PictureRequest], pictures: Pictures) -> list[Verdict]:
        """See ``PictureJudge``."""
        return self.decide(requests, pictures)


def faithfulness_judge(answerer: Judge, *, known: Known | None = None) -> AskingJudge:
    """Judge by DALL-E 3's DrawBench protocol: one query a picture.

    Args:
        answerer: who is asked.
        known: verdicts that the oracle answers from.
    """

    def decide(requests: Sequence[PictureRequest], pictures: Pictures) -> list[Verdict]:
        queries = []
        for request, picture in zip(requests, pictures, strict=True):
            truth = _truth(known, request, picture)
            is_faithful = None if truth is None else truth.correct
            queries.append(
                drawbench.faithfulness_query(
                    request.id, request.prompt, picture, is_faithful=is_faithful
                )
            )
        return [_faithful(reply) for reply in ask_in_order(answerer, queries)]

    return _asking(answerer, "DrawBench protocol", drawbench.INSTRUCTION, decide)


def rating_judge(answerer: Judge, *, known: Known | None = None) -> AskingJudge:
    """Judge by a rating from 0 to 10: one query a picture; 10 is correct.

    Args:
        answerer: who is asked.
        known: verdicts that the oracle answers from.
    """

    def decide(requests: Sequence[PictureRequest], pictures: Pictures) -> list[Verdict]:
        queries = []
        for request, picture in zip(requests, pictures, strict=True):
            truth = _truth(known, request, picture)
            rating = None if truth is None else _true_rating(truth)
            queries.append(rating_query(request.id, request.prompt, picture, rating=rating))
        return [_rated(reply) for reply in ask_in_order(answerer, queries)]

    return _asking(answerer, "rating", RATING_INSTRUCTION, decide)


def question_judge(answerer: Judge, *, known: Known | None = None) -> AskingJudge:
    """Judge by the requests' own question graphs: one query a question.

    Args:
        answerer: who is asked.
        known: verdicts that the oracle answers from.
    """

    def decide(requests: Sequence[PictureRequest], pictures: Pictures) -> list[Verdict]:
        queries: list[Query] = []
        places: list[tuple[int, int]] = []
        for number, (request, picture) in enumerate(zip(requests, pictures, strict=True)):
            if not request.questions:
                raise ValueError(f"request {request.id} has no questions; use the drawbench one")
            truth = _truth(known, request, picture)
            for question in request.questions:
                is_true = None if truth is None else truth.answers[question.number]
                name = f"{request.id} question {question.number}"
                queries.append(yes_no.yes_no_query(name, question.text, picture, is_true=is_true))
                places.append((number, question.number))
        replies = dict(zip(places, ask_in_order(answerer, queries), strict=True))
        return [_by_questions(request, number, replies) for number, request in enumerate(requests)]

    return _asking(answerer, "question graph", yes_no.INSTRUCTION, decide)


def ask_in_order(answerer: Judge, queries: Sequence[Query]) -> list[Reply]:
    """All replies in the order of the queries, with a progress bar."""
    replies: dict[int, Reply] = {}
    replies.update(track(ask_all(answerer, queries), "Judging", total=len(queries)))
    return [replies[number] for number in range(len(queries))]


def read_known(root: str | Path) -> dict[tuple[str, str], Verdict]:
    """The verdicts of a scored folder, its references included; none where it was never scored."""
    root = Path(root)
    known: dict[tuple[str, str], Verdict] = {}
    for path in (root / "results.jsonl", *sorted((root / "references").glob("*.jsonl"))):
        for (request, _, digest), verdict in read_verdicts(path).items():
            known[request, digest] = verdict
    return known


def _asking(answerer: Judge, protocol: str, instruction: str, decide: Any) -> AskingJudge:
    name = f"{answerer.name}, {protocol}"
    return AskingJudge(name=name, fingerprint=hash_text(name + instruction), decide=decide)


def _truth(known: Known | None, request: PictureRequest, picture: Image.Image) -> Verdict | None:
    return known.get((request.id, Sample.of(picture).digest)) if known else None


def _true_rating(truth: Verdict) -> int:
    """Tenths of what passes; all ten only if everything does."""
    return HIGHEST if truth.correct else min(HIGHEST - 1, round(HIGHEST * truth.score))


def _rated(reply: Reply) -> Verdict:
    if reply.failure is not None:
        return _unanswered(reply.failure)
    assert isinstance(reply.answer, int)
    is_right = reply.answer == HIGHEST
    return Verdict(
        score=reply.answer / HIGHEST,
        correct=is_right,
        is_exact=is_right,
        reason="" if is_right else f"rated {reply.answer} of {HIGHEST}",
        seen=reply.text or "",
    )


def _unanswered(failure: Failure) -> Verdict:
    return Verdict.failed(f"{JUDGE_FAILED}{failure.kind}: {failure.detail}")


def _faithful(reply: Reply) -> Verdict:
    if reply.failure is not None:
        return _unanswered(reply.failure)
    is_right = reply.answer == drawbench.CORRECT
    return Verdict(
        score=float(is_right),
        correct=is_right,
        is_exact=is_right,
        reason="" if is_right else "judged incorrect",
        seen=reply.text or "",
    )


def _by_questions(
    request: PictureRequest, number: int, replies: Mapping[tuple[int, int], Reply]
) -> Verdict:
    own = {x.number: replies[number, x.number] for x in request.questions}
    for reply in own.values():
        if reply.failure is not None:
            return _unanswered(reply.failure)
    return judge_answers(request, {x: reply.answer == yes_no.YES for x, reply in own.items()})
