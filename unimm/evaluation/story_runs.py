"""Draw a set of stories, look at it, and score it beside its ceiling and its chance.

Shapes: P pages of a story, S side of the pictures.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.evaluation.intervals import Rate
from unimm.evaluation.pictures import describe_pictures, render_pictures
from unimm.evaluation.stories import (
    PageScore,
    by_distance,
    score_story,
    summarise,
    with_look_of,
)
from unimm.evaluation.story_grid import GridPage, story_grid
from unimm.evaluation.story_sets import StoryTask
from unimm.judges.detector import Detector
from unimm.judges.sightings import Detection, Sighting

Pictures = list[Image.Image | None]
"""The pictures of a story, page by page; None where drawing failed."""
DrawStories = Callable[[Sequence[StoryTask]], list[Pictures]]


def render_tasks(
    tasks: Sequence[StoryTask],
    renderer: Renderer,
    *,
    size: int,
    view: Callable[[Tensor], Tensor] | None = None,
) -> list[Pictures]:
    """Draw what the pages should show.

    Args:
        tasks: the stories.
        renderer: draws their scenes.
        size: side S in pixels.
        view: what happens to the pixels ``(P, 3, S, S)`` in [-1, 1] then, such as an image
            tokenizer's encoding and decoding.
    """
    return [list(render_pictures(x.scenes, renderer, size=size, view=view)) for x in tasks]


def look_at(detector: Detector, stories: Sequence[Pictures]) -> list[list[Sighting | None]]:
    """Let the detector describe every picture; None stays None."""
    drawn = [x for pictures in stories for x in pictures if x is not None]
    described = iter(describe_pictures(detector, drawn))
    return [[None if x is None else next(described) for x in pictures] for pictures in stories]


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """What became of a set of stories.

    Attributes:
        tasks: the stories.
        pictures: what was drawn.
        sightings: what the detector saw.
        scores: every judged page.
        num_failed: pictures that were asked for and never came.
    """

    tasks: list[StoryTask]
    pictures: list[Pictures]
    sightings: list[list[Sighting | None]]
    scores: list[PageScore]
    num_failed: int

    def tables(self) -> dict[str, Any]:
        """Rates with their intervals, as plain data."""
        rates = {when: _plain(rates) for when, rates in summarise(self.scores).items()}
        rates["by page"] = _plain(by_distance(self.scores))
        return rates


def score_set(
    tasks: Sequence[StoryTask], pictures: Sequence[Pictures], detector: Detector
) -> SetResult:
    """Judge the pictures of a set; pages that are missing count as wrong."""
    stories = [
        _filled(list(drawn), len(task.scenes)) for task, drawn in zip(tasks, pictures, strict=True)
    ]
    sightings = look_at(detector, stories)
    scores = [
        score
        for task, seen in zip(tasks, sightings, strict=True)
        for score in score_story(task.truth, seen, story=task.number, first_page=task.first_page)
    ]
    num_failed = sum(
        picture is None
        for task, story in zip(tasks, stories, strict=True)
        for picture in story[task.first_page :]
    )
    return SetResult(
        tasks=list(tasks),
        pictures=stories,
        sightings=sightings,
        scores=scores,
        num_failed=num_failed,
    )


def score_as_shown(result: SetResult) -> dict[str, Any]:
    """Of a swapped set: how often later pages show the character of the page that was put in."""
    by_number = {task.number: task for task in result.tasks}
    scores = [
        score
        for task, seen in zip(result.tasks, result.sightings, strict=True)
        for score in score_story(
            with_look_of(task.truth, by_number[task.shown].truth), seen, story=task.number
        )
    ]
    return {when: _plain(rates) for when, rates in summarise(scores).items()}


def save_set(result: SetResult, folder: Path, name: str) -> None:
    """Write ``NAME.png`` (rows of stories, failures first) and ``NAME.jsonl`` (all of them)."""
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = {(score.story, score.page): score for score in result.scores}
    rows = [
        [
            GridPage(
                pixels=None if picture is None else np.asarray(picture),
                text=text,
                score=verdicts.get((task.number, page)),
            )
            for page, (text, picture) in enumerate(zip(task.page_texts, story, strict=True))
        ]
        for task, story in zip(result.tasks, result.pictures, strict=True)
    ]
    story_grid(rows).save(folder / f"{name}.png")
    with (folder / f"{name}.jsonl").open("w") as file:
        for task, seen in zip(result.tasks, result.sightings, strict=True):
            entry = {
                "story": task.number,
                "page_texts": task.page_texts,
                "truth": task.truth,
                "seen": [None if x is None else _seen(x) for x in seen],
                "scores": [asdict(s) for s in result.scores if s.story == task.number],
            }
            file.write(json.dumps(entry) + "\n")


def _filled(pictures: Pictures, num: int) -> Pictures:
    return pictures[:num] + [None] * (num - len(pictures))


def _plain(rates: dict[str, Rate]) -> dict[str, dict[str, float | int]]:
    return {name: rate.to_json() for name, rate in rates.items()}


def _seen(sighting: Sighting) -> dict[str, Any]:
    return {"background": sighting.background, "figures": [_figure(x) for x in sighting.detections]}


def _figure(x: Detection) -> dict[str, Any]:
    words = {name: getattr(x, name) for name in ("kind", "tint", "headwear", "style", "size")}
    return words | {"box": [round(v, 3) for v in x.box], "score": round(x.score, 3)}
