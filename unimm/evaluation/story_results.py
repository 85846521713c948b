"""Results of stories on disk: what the judge saw on every page, and what is right about it."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from unimm.evaluation.picture_folder import write_text
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_folder import StoryRequest
from unimm.judges.labels import ATTRIBUTES
from unimm.judges.sightings import Detection, Sighting


def write_results(
    path: Path, requests: Sequence[StoryRequest], stories: Sequence[JudgedStory]
) -> None:
    """Write a line a story; a page that failed has nothing seen.

    Args:
        path: the file.
        requests: what was asked for.
        stories: what came, in the same order.
    """
    lines = []
    for request, story in zip(requests, stories, strict=True):
        entry = {
            "id": f"{request.set_name}/{story.number:05}",
            "page_texts": list(story.page_texts),
            "seen": [None if x is None else _seen(x) for x in story.sightings],
            "scores": [asdict(score) for score in story.scores],
        }
        lines.append(json.dumps(entry) + "\n")
    write_text(path, "".join(lines))


def _seen(sighting: Sighting) -> dict[str, Any]:
    return {"background": sighting.background, "figures": [_figure(x) for x in sighting.detections]}


def _figure(x: Detection) -> dict[str, Any]:
    words = {name: getattr(x, name) for name in ATTRIBUTES}
    return words | {"box": [round(v, 3) for v in x.box], "score": round(x.score, 3)}
