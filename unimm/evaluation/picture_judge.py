"""Judges of single pictures: does a picture show what its request demands?

A judge is anything with a name, a fingerprint, a table of its own accuracy, and ``judge``. What
describes pictures (the detector, a parser) becomes one through ``SightingJudge``; what answers
questions (a language model that sees) through ``QuestionJudge``.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from unimm.evaluation.boxes import Found
from unimm.evaluation.geneval import Rules, evaluate, keep_found
from unimm.evaluation.picture_requests import DESCRIPTIVE, PictureRequest
from unimm.evaluation.pictures import describe_pictures
from unimm.evaluation.question_graph import answer, apply_dependencies, graph_score
from unimm.judges.folder import load_detector
from unimm.judges.sightings import Sighting

# The detector's peaks are figures from .3 on, also where they are counted (see its calibration).
DETECTOR_RULES = Rules(counting_threshold=0.3)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of one picture.

    Attributes:
        score: 0 to 1; of the descriptive task the share of questions that pass, else ``correct``.
        correct: everything demanded is there.
        is_exact: and nothing else.
        reason: what is wrong, a line each.
        answers: number of a question -> whether it passes, its parents included.
        seen: what the judge saw, for people to read.
        problem: why there is nothing to judge; such a picture scores 0 and is counted as failed.
    """

    score: float
    correct: bool
    is_exact: bool
    reason: str = ""
    answers: Mapping[int, bool] = field(default_factory=dict)
    seen: str = ""
    problem: str = ""

    @staticmethod
    def failed(problem: str) -> "Verdict":
        """Of a picture that is missing or cannot be read."""
        return Verdict(score=0.0, correct=False, is_exact=False, problem=problem)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        entry: dict[str, Any] = asdict(self)
        return entry | {"answers": {str(key): x for key, x in self.answers.items()}}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Verdict":
        """Read what ``to_json`` wrote."""
        fields: dict[str, Any] = dict(entry)
        fields["answers"] = {int(key): x for key, x in entry["answers"].items()}
        return Verdict(**fields)


class PictureJudge(Protocol):
    """What a judge of pictures must have; one file each."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    @property
    def fingerprint(self) -> str:
        """Of its weights and rules; verdicts of two fingerprints are never mixed."""
        ...

    @property
    def accuracy(self) -> Mapping[str, Any]:
        """What is known of its own errors."""
        ...

    def judge(
        self, requests: Sequence[PictureRequest], pictures: Sequence[Image.Image]
    ) -> list[Verdict]:
        """Judge one picture a request; all pictures are RGB squares of one size."""
        ...


@dataclass(frozen=True, kw_only=True)
class SightingJudge:
    """Judges by what describes pictures.

    Attributes:
        look: pictures to what they show.
        name: of the judge.
        fingerprint: of its weights and rules.
        accuracy: see ``PictureJudge``.
        rules: of GenEval.
    """

    look: Callable[[Sequence[Image.Image]], list[Sighting]]
    name: str
    fingerprint: str
    accuracy: Mapping[str, Any] = field(default_factory=dict)
    rules: Rules = DETECTOR_RULES

    def judge(
        self, requests: Sequence[PictureRequest], pictures: Sequence[Image.Image]
    ) -> list[Verdict]:
        """See ``PictureJudge``."""
        return [
            judge_sighting(request, sighting, picture.size, self.rules)
            for request, sighting, picture in zip(
                requests, self.look(pictures), pictures, strict=True
            )
        ]


def judge_sighting(
    request: PictureRequest, sighting: Sighting, size: tuple[int, int], rules: Rules
) -> Verdict:
    """Hold what was seen against a request.

    Args:
        request: what was demanded.
        sighting: what was seen.
        size: width and height of the picture in pixels.
        rules: of GenEval.
    """
    scale = (*size, *size)
    found = [
        Found(
            kind=x.kind,
            box=(
                x.box[0] * scale[0],
                x.box[1] * scale[1],
                x.box[2] * scale[0],
                x.box[3] * scale[1],
            ),
            score=x.score,
            looks={"color": x.tint, "headwear": x.headwear, "style": x.style},
        )
        for x in sighting.detections
    ]
    objects = keep_found(found, request.tag, rules=rules)
    outcome = evaluate(objects, request.metadata, rules=rules)
    said = {
        question.number: answer(question, objects, sighting.background, relations=rules.relations)
        for question in request.questions
    }
    passed = apply_dependencies(request.questions, said)
    is_graph = request.tag == DESCRIPTIVE
    correct = all(passed.values()) if is_graph else outcome.correct
    return Verdict(
        score=graph_score(request.questions, said) if is_graph else float(outcome.correct),
        correct=correct,
        is_exact=correct and outcome.is_exact,
        reason=_failed_questions(request, passed) if is_graph else outcome.reason,
        answers=passed,
        seen=_say(sighting),
    )


@dataclass(frozen=True, kw_only=True)
class QuestionJudge:
    """Judges by what answers yes/no questions about pictures, such as a language model that sees.

    Attributes:
        ask: pictures, each with a question, to yes, no, or None where the answer is not understood.
        name: of the judge.
        fingerprint: of its weights or address, and of how it is asked.
        accuracy: see ``PictureJudge``.
    """

    ask: Callable[[Sequence[tuple[Image.Image, str]]], Sequence[bool | None]]
    name: str
    fingerprint: str
    accuracy: Mapping[str, Any] = field(default_factory=dict)

    def judge(
        self, requests: Sequence[PictureRequest], pictures: Sequence[Image.Image]
    ) -> list[Verdict]:
        """See ``PictureJudge``; exact is what is correct, since extra things are not asked for."""
        asked = [
            (picture, question.text)
            for request, picture in zip(requests, pictures, strict=True)
            for question in request.questions
        ]
        said = iter(self.ask(asked))
        return [
            judge_answers(request, {x.number: next(said) for x in request.questions})
            for request in requests
        ]


def judge_answers(request: PictureRequest, answers: Mapping[int, bool | None]) -> Verdict:
    """Hold the answers to a request's questions against it.

    Args:
        request: what was demanded.
        answers: number of a question -> yes or no; None where no answer could be understood, which
            is a failure of the judge and not a no.
    """
    known = {number: x for number, x in answers.items() if x is not None}
    silent = [x.text for x in request.questions if x.number not in known]
    if silent or not request.questions:
        said = f"the judge gave no answer to {silent}" if silent else "nothing is asked"
        return Verdict.failed(said)
    passed = apply_dependencies(request.questions, known)
    correct = all(passed.values())
    share = graph_score(request.questions, known)
    return Verdict(
        score=share if request.tag == DESCRIPTIVE else float(correct),
        correct=correct,
        is_exact=correct,
        reason=_failed_questions(request, passed),
        answers=passed,
    )


def detector_judge(folder: str | Path, *, device: torch.device | str = "cpu") -> SightingJudge:
    """The detector of a folder as a judge, with its calibration beside it.

    Raises:
        ValueError: the folder holds no detector that fits.
    """
    folder = Path(folder)
    detector = load_detector(folder, device=device)
    digest = hashlib.sha256(repr(DETECTOR_RULES).encode())
    for name in ("config.json", "model.safetensors"):
        digest.update((folder / name).read_bytes())
    calibration = folder / "calibration.json"
    tables = json.loads(calibration.read_text()) if calibration.is_file() else {}
    return SightingJudge(
        look=lambda pictures: describe_pictures(detector, pictures),
        name=f"detector {folder.name}",
        fingerprint=digest.hexdigest()[:16],
        accuracy=tables.get("3d", {}).get("attributes", {}),
    )


def _failed_questions(request: PictureRequest, passed: Mapping[int, bool]) -> str:
    wrong = [question.text for question in request.questions if not passed[question.number]]
    return "\n".join(f"no: {text}" for text in wrong)


def _say(sighting: Sighting) -> str:
    """``blue fox with crown, red ball; snow``."""
    words = []
    for x in sighting.detections:
        hat = "" if x.headwear == "none" else f" with {x.headwear}"
        tint = "" if x.tint == "natural" else f"{x.tint} "
        words.append(f"{tint}{x.kind}{hat}")
    return f"{', '.join(words) or 'nothing'}; {sighting.background}"
