"""From pictures of stories to what a judge makes of them."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image
from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_sets import StoryTask
from unimm.judges.sightings import Sighting

Pictures = list[Image.Image | None]
"""The pictures of a story, page by page; None where drawing failed."""
Look = Callable[[Sequence[Image.Image]], list[Sighting]]
"""What a judge sees on pictures, such as ``SightingJudge.look``."""


def render_stories(
    stories: Sequence[Sequence[Scene]],
    renderer: Renderer,
    *,
    size: int,
    view: Callable[[Tensor], Tensor] | None = None,
) -> list[Pictures]:
    """Draw the scenes of stories, all together; see ``render_pictures``."""
    scenes = [scene for story in stories for scene in story]
    pictures = iter(render_pictures(scenes, renderer, size=size, view=view))
    return [[next(pictures) for _ in story] for story in stories]


def judge_stories(
    tasks: Sequence[StoryTask], pictures: Sequence[Pictures], look: Look
) -> list[JudgedStory]:
    """Let a judge look at the pictures of stories; a page that is None was not drawn."""
    drawn = [x for story in pictures for x in story if x is not None]
    described = iter(look(drawn))
    return [
        JudgedStory(
            number=task.number,
            truth=task.truth,
            page_texts=task.page_texts,
            sightings=tuple(None if x is None else next(described) for x in story),
            pictures=tuple(None if x is None else np.asarray(x) for x in story),
            first_page=task.first_page,
            other_truth=task.other_truth,
        )
        for task, story in zip(tasks, pictures, strict=True)
    ]


def num_failed(stories: Sequence[JudgedStory]) -> int:
    """Pictures that were asked for and never came."""
    return sum(x is None for story in stories for x in story.pictures[story.first_page :])
