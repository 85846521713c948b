"""The contract on disk of scoring stories: requests, samples, results, summary, report.

``requests.jsonl -> samples/ -> results.jsonl -> summary.json + report.html``, as for single
pictures (``picture_folder``): ``samples/00007/samples/00002.png`` is the third page of the eighth
request. A picture that is given lies there, too. Of stories that a model writes itself, each page's
text lies beside its picture: ``00002.txt``.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from unimm.evaluation.picture_folder import PictureFolder, read_sample, write_text
from unimm.evaluation.picture_requests import hash_text
from unimm.evaluation.story_judging import Pictures
from unimm.evaluation.story_sets import StoryTask


@dataclass(frozen=True, kw_only=True)
class StoryRequest:
    """One story that is asked for.

    Attributes:
        set_name: split and set, and how it is asked: ``heldout words, no context``.
        task: the story.
    """

    set_name: str
    task: StoryTask

    def to_json(self) -> dict[str, Any]:
        """One line of ``requests.jsonl``."""
        task = self.task
        return {
            "id": f"{self.set_name}/{task.number:05}",
            "pages": list(task.read_texts),
            "is_alone": task.is_alone,
            "num_pages": len(task.page_texts),
            "num_given": task.first_page,
            "truth": task.truth,
        }


class StoryFolder:
    """A run on disk.

    Args:
        root: the folder; made when it is missing.
        requests: what is asked for.

    Raises:
        ValueError: requests of other settings lie here.
    """

    def __init__(self, root: str | Path, requests: Sequence[StoryRequest]) -> None:
        self.files = PictureFolder(root)
        self.requests = list(requests)
        text = "".join(json.dumps(request.to_json()) + "\n" for request in requests)
        self.digest = hash_text(text)
        path = self.files.requests_path
        if not path.is_file():
            write_text(path, text)
        elif (there := hash_text(path.read_text(encoding="utf-8"))) != self.digest:
            raise ValueError(
                f"{path} holds requests {there}, but this run asks {self.digest}; give another "
                "output folder or the old settings"
            )

    def missing(self) -> list[int]:
        """Numbers of the requests that lack a page."""
        return [
            number
            for number in range(len(self.requests))
            if any(
                not self.files.path_of(number, page).exists()
                for page in range(self._num_pages(number))
            )
        ]

    def write(self, request: int, page: int, picture: Image.Image, *, text: str = "") -> None:
        """Save a page, its text first: where a picture is, its text is."""
        if self.requests[request].task.is_written:
            path = self._text_of(request, page)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
        self.files.write_sample(request, page, picture)

    def read_texts(self, request: int) -> list[str]:
        """What the model wrote on each page; empty where there is no text."""
        paths = [self._text_of(request, page) for page in range(self._num_pages(request))]
        return [path.read_text(encoding="utf-8") if path.is_file() else "" for path in paths]

    def _text_of(self, request: int, page: int) -> Path:
        return self.files.path_of(request, page).with_suffix(".txt")

    def _num_pages(self, request: int) -> int:
        return len(self.requests[request].task.page_texts)

    def read(self) -> list[Pictures]:
        """The pages of all stories; None for one that is missing, damaged, or of another size."""
        stories: list[Pictures] = [
            [
                read_sample(self.files.path_of(number, page)).picture
                for page in range(self._num_pages(number))
            ]
            for number in range(len(self.requests))
        ]
        sizes = Counter(x.size for story in stories for x in story if x is not None)
        right = sizes.most_common(1)[0][0] if sizes else None
        return [[x if x and x.size == right else None for x in story] for story in stories]
