"""Ask a model for the pictures of stories whose texts are given."""

from collections.abc import Callable, Sequence

import torch

from unimm.data.world.render import Renderer
from unimm.document import ImageTokens, Part, mix_seed
from unimm.evaluation.story_config import StorySampling
from unimm.evaluation.story_runs import Pictures, render_tasks
from unimm.evaluation.story_sets import StoryTask
from unimm.generation.writer import PictureEvent, Plan, Request, write
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline, decode_images, encode_image


def draw_tasks(
    pipeline: Pipeline,
    tasks: Sequence[StoryTask],
    sampling: StorySampling,
    *,
    seed: int,
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> list[Pictures]:
    """Draw the pages of stories, many at once.

    Args:
        pipeline: model and tokenizers.
        tasks: the stories of one set, with equally many pages.
        sampling: how pictures are drawn.
        seed: with a story's number it seeds the story, whatever the batch.
        batch_size: stories at once.
        on_batch: told how many stories are done.

    Returns:
        Pages of each story: a given first picture as it was given, None for what failed.
    """
    stories: list[Pictures] = []
    for start in range(0, len(tasks), batch_size):
        chunk = tasks[start : start + batch_size]
        stories += _draw_or_split(pipeline, chunk, sampling, seed)
        if on_batch:
            on_batch(len(stories))
    return stories


def _draw_or_split(
    pipeline: Pipeline, tasks: Sequence[StoryTask], sampling: StorySampling, seed: int
) -> list[Pictures]:
    """Draw a batch; one story that does not fit the context must not take the others with it."""
    try:
        return _draw(pipeline, tasks, sampling, seed)
    except ValueError:
        if len(tasks) == 1:
            return [[None] * len(tasks[0].page_texts)]
        middle = len(tasks) // 2
        halves = (tasks[:middle], tasks[middle:])
        return [x for half in halves for x in _draw_or_split(pipeline, half, sampling, seed)]


def _draw(
    pipeline: Pipeline, tasks: Sequence[StoryTask], sampling: StorySampling, seed: int
) -> list[Pictures]:
    first_page, num_pages = tasks[0].first_page, len(tasks[0].page_texts)
    stories = _given_pictures(pipeline, tasks)
    plan = Plan(
        text=SamplingConfig(),
        first_page=sampling.first_page,
        later_pages=sampling.later_pages,
        num_images=num_pages - first_page,
    )
    requests = [
        _request(pipeline, task, pictures, seed)
        for task, pictures in zip(tasks, stories, strict=True)
    ]
    drawn: list[list[ImageTokens]] = [[] for _ in tasks]
    for event in write(pipeline, requests, plan):
        if isinstance(event, PictureEvent):
            drawn[event.document].append(event.tokens)
    pictures = iter(decode_images(pipeline, [tokens for story in drawn for tokens in story]))
    for story, tokens in zip(stories, drawn, strict=True):
        story += [next(pictures) for _ in tokens]
        story += [None] * (num_pages - len(story))
    return stories


def _given_pictures(pipeline: Pipeline, tasks: Sequence[StoryTask]) -> list[Pictures]:
    """The true first picture of stories that are introduced by it, else nothing."""
    if tasks[0].given is None:
        return [[] for _ in tasks]
    renders = render_tasks(tasks, Renderer(), size=pipeline.image_size)
    return [pictures[:1] for pictures in renders]


def _request(pipeline: Pipeline, task: StoryTask, given: Pictures, seed: int) -> Request:
    ids = [pipeline.text_tokenizer.encode(text) for text in task.page_texts]
    parts: list[Part] = []
    for text, picture in zip(ids, given, strict=False):
        assert picture is not None
        tokens = encode_image(pipeline, picture)
        parts += [Part(text_ids=torch.tensor(text)), Part(tokens=tokens, is_drawn=False)]
    return Request(
        parts=tuple(parts),
        page_texts=tuple(ids[len(given) :]),
        seed=mix_seed(seed, task.number, 0),
    )
