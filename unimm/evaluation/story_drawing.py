"""Ask a model for the pictures of stories whose texts are given.

A *job* is one document: a whole story, or one page of a story whose pages are drawn alone. Jobs of
one shape (pictures given, pictures to draw) go together, whatever set they belong to.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image

from unimm.data.world.render import Renderer
from unimm.document import ImageTokens, Part, mix_seed
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.story_config import StorySampling
from unimm.evaluation.story_judging import Pictures
from unimm.evaluation.story_sets import StoryTask
from unimm.generation.cache_policy import CachePolicy
from unimm.generation.request import Plan, Request
from unimm.generation.writer import PictureEvent, write
from unimm.pictures import decode_images, encode_image
from unimm.pipeline import Pipeline

_PAGES = 4  # of a usual story; shorter documents go more at once


class DrawnPage(NamedTuple):
    """A page as it came: a picture, None if it failed, and the text where the model wrote it."""

    picture: Image.Image | None
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One document: pages ``first`` to ``last`` (not included) of a story are to be drawn."""

    story: int
    task: StoryTask
    first: int
    last: int
    is_given: bool  # page 1's picture stands before them

    @property
    def shape(self) -> tuple[bool, bool, int]:
        return self.is_given, self.task.is_written, self.last - self.first


def draw_tasks(
    pipeline: Pipeline,
    tasks: Sequence[StoryTask],
    sampling: StorySampling,
    *,
    seed: int,
    batch_size: int,
    cache_policy: CachePolicy | None = None,
    on_page: Callable[[int, int, DrawnPage], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Pictures]:
    """Draw the pages of stories, many at once.

    Args:
        pipeline: model and tokenizers.
        tasks: stories of any sets.
        sampling: how pictures are drawn.
        seed: with a story's number and the job's first page it seeds the job, whatever the batch.
        batch_size: stories at once; of pages that are drawn alone, four times as many.
        cache_policy: what leaves the cache of long stories; by default nothing does.
        on_page: called with number of the story, number of the page, and the page, as they come;
            pages that failed are left out.
        tell: called with a line for each batch.

    Returns:
        Pages of each story: a given first picture as it was given, None for what failed.
    """
    given = _given_pictures(pipeline, tasks)
    stories: list[Pictures] = [[None] * len(task.page_texts) for task in tasks]

    def keep(story: int, page: int, drawn: DrawnPage) -> None:
        stories[story][page] = drawn.picture
        if drawn.picture is not None and on_page:
            on_page(story, page, drawn)

    for story, picture in enumerate(given):
        keep(story, 0, DrawnPage(picture))
    by_shape: dict[tuple[bool, bool, int], list[_Job]] = defaultdict(list)
    for job in _jobs(tasks):
        by_shape[job.shape].append(job)
    num_jobs, num_done = sum(map(len, by_shape.values())), 0
    for (*_, num_images), jobs in by_shape.items():
        at_once = batch_size * max(1, _PAGES // num_images)
        for start in range(0, len(jobs), at_once):
            chunk = jobs[start : start + at_once]
            drawn = _draw_or_split(pipeline, chunk, given, sampling, seed, cache_policy)
            for job, pages in zip(chunk, drawn, strict=True):
                for number, page in enumerate(pages, job.first):
                    keep(job.story, number, page)
            num_done += len(chunk)
            if tell:
                tell(f"drew {num_done} of {num_jobs} documents")
    return stories


def _jobs(tasks: Sequence[StoryTask]) -> Iterator[_Job]:
    for story, task in enumerate(tasks):
        num_pages = len(task.page_texts)
        if not task.is_alone:
            is_given = task.given is not None
            yield _Job(
                story=story, task=task, first=task.first_page, last=num_pages, is_given=is_given
            )
            continue
        for page in range(task.first_page, num_pages):
            yield _Job(story=story, task=task, first=page, last=page + 1, is_given=False)


def _draw_or_split(
    pipeline: Pipeline,
    jobs: Sequence[_Job],
    given: Pictures,
    sampling: StorySampling,
    seed: int,
    cache_policy: CachePolicy | None,
) -> list[list[DrawnPage]]:
    """Draw a batch; one story that does not fit the context must not take the others with it."""
    try:
        return _draw(pipeline, jobs, given, sampling, seed, cache_policy)
    except ValueError:
        if len(jobs) == 1:
            return [[DrawnPage(None)] * (jobs[0].last - jobs[0].first)]
        middle = len(jobs) // 2
        return [
            pages
            for half in (jobs[:middle], jobs[middle:])
            for pages in _draw_or_split(pipeline, half, given, sampling, seed, cache_policy)
        ]


def _draw(
    pipeline: Pipeline,
    jobs: Sequence[_Job],
    given: Pictures,
    sampling: StorySampling,
    seed: int,
    cache_policy: CachePolicy | None,
) -> list[list[DrawnPage]]:
    num_images = jobs[0].last - jobs[0].first
    plan = Plan(
        text=pipeline.sampler.text,
        first_page=sampling.first_page,
        later_pages=sampling.later_pages,
        num_images=num_images,
        cache_policy=cache_policy,
        write_on=sampling.write_on,
    )
    requests = [_request(pipeline, job, given[job.story], seed) for job in jobs]
    drawn: list[list[ImageTokens]] = [[] for _ in jobs]
    written = [_begun(request) for request in requests]
    for event in write(pipeline, requests, plan):
        if isinstance(event, PictureEvent):
            drawn[event.document].append(event.tokens)
            written[event.document].append([])
        else:
            written[event.document][-1] += event.ids
    pictures = iter(decode_images(pipeline, [tokens for story in drawn for tokens in story]))
    stories: list[list[DrawnPage]] = []
    for job, tokens, texts in zip(jobs, drawn, written, strict=True):
        pages = [DrawnPage(next(pictures)) for _ in tokens]
        if job.task.is_written:
            words = [pipeline.text_tokenizer.decode(ids).strip() for ids in texts]
            pages = [page._replace(text=text) for page, text in zip(pages, words, strict=False)]
        stories.append(pages + [DrawnPage(None)] * (num_images - len(pages)))
    return stories


def _begun(request: Request) -> list[list[int]]:
    """Text ids of the page that is to be drawn first, as far as they stand: pages of ids."""
    is_picture_last = bool(request.parts) and not request.parts[-1].is_text
    ids = [] if is_picture_last or not request.parts else request.parts[-1].text_ids
    return [[] if ids is None else [int(x) for x in ids]]


def _given_pictures(pipeline: Pipeline, tasks: Sequence[StoryTask]) -> Pictures:
    """The true first picture of stories that are introduced by it, else None."""
    scenes = [task.given for task in tasks if task.given is not None]
    pictures = iter(render_pictures(scenes, Renderer(), size=pipeline.image_size))
    return [None if task.given is None else next(pictures) for task in tasks]


def _request(pipeline: Pipeline, job: _Job, given: Image.Image | None, seed: int) -> Request:
    ids = [pipeline.text_tokenizer.encode(text) for text in job.task.read_texts]
    parts: list[Part] = []
    if job.task.is_written:  # page 1 is a prompt to go on from
        return Request(
            parts=(Part(text_ids=torch.tensor(ids[0])),),
            seed=mix_seed(seed, job.task.number, 0),
        )
    if job.is_given:
        assert given is not None
        tokens = encode_image(pipeline, given)
        parts += [Part(text_ids=torch.tensor(ids[0])), Part(tokens=tokens, is_drawn=False)]
    return Request(
        parts=tuple(parts),
        page_texts=tuple(ids[job.first : job.last]),
        seed=mix_seed(seed, job.task.number, job.first if job.task.is_alone else 0),
    )
