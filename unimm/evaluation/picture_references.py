"""What a score of pictures must be seen beside: two ceilings and two baselines.

- ``ceiling``: true renders of what was asked. What the judge gets wrong there, nobody can win.
- ``ceiling after the tokenizer``: the same through the generator's image tokenizer.
- ``random image``: pictures of other prompts of the same task.
- ``nearest neighbour``: the training picture that fits the prompt best.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene
from unimm.evaluation.nearest_scenes import NearestScenes
from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.pictures import render_pictures

CEILING = "ceiling"
CEILING_AFTER = "ceiling after the tokenizer"
RANDOM = "random image"
NEAREST = "nearest neighbour"
REFERENCES: tuple[str, ...] = (CEILING, CEILING_AFTER, RANDOM, NEAREST)

Rows = list[list[Sample]]
"""The pictures of each request."""


def make_references(
    requests: Sequence[PictureRequest],
    rows: Rows,
    renderer: Renderer,
    *,
    size: int,
    pool: NearestScenes,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Rows | None]:
    """Make the pictures of all references.

    Args:
        requests: what was asked; each with a scene.
        rows: the generator's own pictures.
        renderer: draws scenes.
        size: side of the pictures in pixels.
        pool: training scenes.
        reconstruct: the generator's image tokenizer, see ``ImageTokenizer.reconstruct``; None for
            a generator that has none here.

    Returns:
        Name -> the pictures of each request; None for the tokenizer's ceiling without a tokenizer.

    Raises:
        ValueError: a request has no scene, or is the only one of its task.
    """
    scenes = true_scenes(requests)
    nearest = [
        pool.nearest(
            [question.atom for question in request.questions],
            num_figures=sum(clause.count for clause in request.metadata.include),
        )
        for request in requests
    ]
    tables: dict[str, Rows | None] = {
        CEILING: _rows(scenes, renderer, size),
        CEILING_AFTER: None,
        RANDOM: other_prompts(requests, rows),
        NEAREST: _rows(nearest, renderer, size),
    }
    if reconstruct is not None:
        tables[CEILING_AFTER] = _rows(scenes, renderer, size, reconstruct)
    return tables


def true_scenes(requests: Sequence[PictureRequest]) -> list[Scene]:
    """What each request asks for.

    Raises:
        ValueError: a request does not know; without a ceiling no score is written.
    """
    scenes: list[Scene] = []
    for request in requests:
        if request.scene is None:
            raise ValueError(
                f"request {request.id} ({request.prompt!r}) has no scene, so its ceiling is not "
                "known and its score says nothing; ask for prompts of WorldEval"
            )
        scenes.append(request.scene)
    return scenes


def other_prompts(requests: Sequence[PictureRequest], rows: Rows) -> Rows:
    """Give each request the pictures of the one before it in its task and split.

    Raises:
        ValueError: a request has no other to take them from.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        groups[request.split, request.tag].append(number)
    shuffled: Rows = [[] for _ in requests]
    for (split, tag), numbers in groups.items():
        if len(numbers) < 2:
            raise ValueError(f"one prompt of {tag}, {split}, has no other's picture; ask for 2")
        for place, number in enumerate(numbers):
            shuffled[number] = rows[numbers[place - 1]]
    return shuffled


def _rows(
    scenes: Sequence[Scene],
    renderer: Renderer,
    size: int,
    view: Callable[[Tensor], Tensor] | None = None,
) -> Rows:
    pictures = render_pictures(scenes, renderer, size=size, view=view)
    return [[Sample.of(picture)] for picture in pictures]
