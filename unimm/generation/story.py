"""Stories: text and pictures in turn, from one beginning or many."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, overload

from unimm.generation.book import Story
from unimm.generation.generate import generate
from unimm.generation.prompts import Prompt
from unimm.generation.telling import StoryEvent
from unimm.pipeline import Pipeline


@overload
def generate_story(
    pipeline: Pipeline, prompt: Prompt, *, stream: Literal[True], **options: Any
) -> Iterator[StoryEvent]: ...
@overload
def generate_story(
    pipeline: Pipeline, prompt: str, *, stream: Literal[False] = False, **options: Any
) -> Story: ...
@overload
def generate_story(
    pipeline: Pipeline, prompt: Sequence[Prompt], *, stream: bool = False, **options: Any
) -> Any: ...
def generate_story(  # pyright: ignore[reportInconsistentOverload]
    pipeline: Pipeline, prompt: Prompt | Sequence[Prompt], **options: Any
) -> Any:
    """Write and draw a story: what ``generate`` makes of a beginning.

    Args:
        pipeline: the model.
        prompt: how the story begins: a text, which may be empty, or texts and pictures in turn. A
            list of texts, or a list of lists, is many stories, which are made together.
        options: ``num_images``, ``page_texts``, ``seed``, ``guidance_scale``, ``stream`` and all
            others of ``generate``.

    Returns:
        A ``Story``; a list of them for many prompts; an iterator of events when streaming.

    Raises:
        ValueError: if an option is out of range, or prompt and pictures do not fit the context.
    """
    return generate(pipeline, prompt, **options)
