"""Sightings made by hand, for tests of the story measures."""

from collections.abc import Callable, Sequence

import numpy as np

from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_sets import StoryTask
from unimm.judges.sightings import Detection, Sighting


def detection(
    kind: str, tint: str = "natural", headwear: str = "none", side: float = 0.5, style: str = "3d"
) -> Detection:
    """A figure in the upper left corner."""
    return Detection(
        kind=kind,
        tint=tint,
        headwear=headwear,
        style=style,
        box=(0.0, 0.0, side, side),
        score=0.9,
        probabilities=np.zeros(0),
    )


def true_sighting(page: dict) -> Sighting:
    """What a perfect picture of a page shows."""
    characters = [detection(x["species"], x["tint"], x["headwear"]) for x in page["characters"]]
    objects = [detection(x["kind"], x["tint"], side=0.3) for x in page["objects"]]
    return Sighting(page["background"], characters + objects)


def judged(
    task: StoryTask,
    *,
    sightings: Sequence[Sighting | None] | None = None,
    change: Callable[[Sighting], Sighting] = lambda x: x,
) -> JudgedStory:
    """A story whose pages show what they should, changed, or these sightings; pictures differ."""
    if sightings is None:
        sightings = [change(true_sighting(page)) for page in task.truth["pages"]]
    pictures = [np.full((4, 4, 3), 40 * page, np.uint8) for page in range(len(sightings))]
    return JudgedStory(
        number=task.number,
        truth=task.truth,
        page_texts=task.page_texts,
        sightings=tuple(sightings),
        pictures=tuple(pictures),
        first_page=task.first_page,
    )
