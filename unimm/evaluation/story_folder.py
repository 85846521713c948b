"""The contract on disk of scoring stories: requests, samples, results, summary, report.

``requests.jsonl -> samples/ -> results.jsonl -> summary.json + report.html``, as for single
pictures (``picture_folder``): ``samples/00007/samples/00002.png`` is the third page of the eighth
request. A picture that is given lies there, too.
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
            for number, request in enumerate(self.requests)
            if any(
                not self.files.path_of(number, page).exists()
                for page in range(len(request.task.page_texts))
            )
        ]

    def write(self, request: int, page: int, picture: Image.Image) -> None:
        """Save a page."""
        self.files.write_sample(request, page, picture)

    def read(self) -> list[Pictures]:
        """The pages of all stories; None for one that is missing, damaged, or of another size."""
        stories: list[Pictures] = [
            [
                read_sample(self.files.path_of(number, page)).picture
                for page in range(len(request.task.page_texts))
            ]
            for number, request in enumerate(self.requests)
        ]
        sizes = Counter(x.size for story in stories for x in story if x is not None)
        right = sizes.most_common(1)[0][0] if sizes else None
        return [[x if x and x.size == right else None for x in story] for story in stories]
