"""Requests: what a picture generator is asked for, and all that judging its answer needs.

``requests.jsonl`` holds a request a line. Each line is also a line of a GenEval metadata file, so a
script that draws for GenEval draws for these requests as it is.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.world.scene import Scene
from unimm.evaluation.geneval import Metadata
from unimm.evaluation.question_graph import Question

DESCRIPTIVE = "descriptive"  # the tag whose score is that of the question graph


@dataclass(frozen=True, kw_only=True)
class PictureRequest:
    """One prompt.

    Attributes:
        id: unique among the requests.
        split: ``seen`` or ``heldout``; ``given`` for prompts of others.
        metadata: prompt, task and demands, as GenEval has them.
        questions: the same as yes/no questions, for the descriptive task and for judges that answer
            questions.
        scene: a picture that fulfils the request; None where nobody knows one.
    """

    id: str
    split: str
    metadata: Metadata
    questions: tuple[Question, ...] = ()
    scene: Scene | None = None

    @property
    def tag(self) -> str:
        """The task."""
        return self.metadata.tag

    @property
    def prompt(self) -> str:
        """The text."""
        return self.metadata.prompt

    def to_json(self) -> dict[str, Any]:
        """One line of ``requests.jsonl``."""
        entry = self.metadata.to_json() | {"id": self.id, "split": self.split}
        if self.questions:
            entry["questions"] = [question.to_json() for question in self.questions]
        if self.scene is not None:
            entry["scene"] = json.loads(self.scene.to_json())
        return entry

    @staticmethod
    def from_json(entry: dict[str, Any], *, number: int = 0) -> "PictureRequest":
        """Read a line; one of GenEval's own files gets its number as its name."""
        scene = entry.get("scene")
        return PictureRequest(
            id=entry.get("id", f"{number:05}"),
            split=entry.get("split", "given"),
            metadata=Metadata.from_json(entry),
            questions=tuple(Question.from_json(x) for x in entry.get("questions", ())),
            scene=None if scene is None else Scene.from_json(json.dumps(scene)),
        )


def dump_requests(requests: Sequence[PictureRequest]) -> str:
    """The text of ``requests.jsonl``; equal requests give equal text.

    Raises:
        ValueError: there is none, or two have one name.
    """
    if not requests:
        raise ValueError("there are no requests; ask for at least one prompt")
    names = [request.id for request in requests]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two requests are called {twice!r}; names must be unique")
    return "".join(json.dumps(request.to_json()) + "\n" for request in requests)


def read_requests(path: str | Path) -> list[PictureRequest]:
    """Read ``requests.jsonl``, or a metadata file of GenEval.

    Raises:
        ValueError: the file is missing or empty, or a line is not a request; the line is named.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no requests at {path}")
    requests: list[PictureRequest] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            requests.append(PictureRequest.from_json(json.loads(line), number=number))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number + 1}: {error}") from error
    dump_requests(requests)
    return requests


def hash_text(text: str) -> str:
    """Sixteen hex digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
