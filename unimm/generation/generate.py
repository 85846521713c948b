"""Any text and pictures in, any text and pictures out: the one way in which unimm generates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from PIL import Image

from unimm.generation.book import Story
from unimm.generation.cache_policy import CachePolicy
from unimm.generation.prompts import Prompt, split_page_texts, split_prompts
from unimm.generation.settings import base_plan, change_plan, choose_seeds
from unimm.generation.telling import StoryEvent, Telling, tell
from unimm.generation.writer import Progress
from unimm.pipeline import Pipeline


@overload
def generate(
    pipeline: Pipeline, parts: Prompt | Sequence[Prompt], *, stream: Literal[True], **options: Any
) -> Iterator[StoryEvent]: ...
@overload
def generate(
    pipeline: Pipeline, parts: str | Image.Image, *, stream: Literal[False] = False, **options: Any
) -> Story: ...
@overload
def generate(
    pipeline: Pipeline, parts: Prompt | Sequence[Prompt], *, stream: bool = False, **options: Any
) -> Any: ...
def generate(  # pyright: ignore[reportInconsistentOverload]
    pipeline: Pipeline,
    parts: Prompt | Sequence[Prompt],
    *,
    num_images: int | Sequence[int | None] | None = None,
    max_images: int | None = None,
    max_text_tokens: int | None = None,
    page_texts: Sequence[str] | Sequence[Sequence[str]] | None = None,
    seed: int | Sequence[int] | None = None,
    text_temperature: float | None = None,
    text_top_k: int | None = None,
    text_top_p: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance_scale: float | None = None,
    first_guidance_scale: float | None = None,
    image_guidance_scale: float | None = None,
    num_steps: int | None = None,
    objective: str | None = None,
    cache_policy: CachePolicy | None = None,
    num_previews: int | None = None,
    write_on: bool | None = None,
    settings: Mapping[str, Any] | None = None,
    stream: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Go on with texts and pictures.

    Continue a story, caption a picture, answer a question about it, illustrate a text, edit::

        generate(pipeline, ["This is Mia.", Path("mia.jpg"), "One day"], num_images=3)
        generate(pipeline, [picture, "The picture shows"], num_images=0)
        generate(pipeline, [picture, "What colour is the fox?"], num_images=0)
        generate(pipeline, "", page_texts=["Mia is a fox.", "She finds a red balloon."])
        generate(pipeline, [picture, "Make the fox blue."], num_images=1, max_text_tokens=0)

    Args:
        pipeline: the model.
        parts: what stands already: a text, a picture (``PIL.Image``, a ``pathlib.Path``, or
            ``ImageTokens``), or a list of both in any order. A list of texts, or a list of lists,
            is many documents, which are made together, whatever each of them is.
        num_images: pictures to draw: the document ends with the last; 0 writes text only. By
            default the model ends it. Of many documents one number, or a list of them.
        max_images: bound on the pictures when the model ends the document; 8 by default.
        max_text_tokens: bound on the text before each picture, 96 by default; with 0 the model
            writes nothing and draws what stands there.
        page_texts: text before each picture to draw, instead of the model's own: a list of texts,
            for many documents a list of lists. The first one goes on from the prompt.
        seed: of all randomness; document ``i`` of many gets ``seed + i``, or its own from a list.
            By default one is drawn; it is recorded in ``settings``.
        text_temperature: of the text; 0 is greedy. Options that are None are the model's defaults.
        text_top_k: keeps the k most likely text tokens; 0 keeps all.
        text_top_p: keeps the likeliest text tokens that have this probability together.
        temperature: of the pictures; 0 is greedy.
        top_k: as ``text_top_k``, for pictures.
        top_p: as ``text_top_p``, for pictures.
        guidance_scale: of the pictures, away from what would be drawn without any text; 1 is off.
        first_guidance_scale: of a document's first picture, if it shall differ.
        image_guidance_scale: away from what would be drawn without the earlier pictures; 1 is off.
        num_steps: of pictures that are drawn in steps of the caller's choice, such as denoising; 0
            is the model's own number.
        objective: which of the model's objectives draws; by default the pipeline's.
        cache_policy: lets old pages go, so that a story may be longer than the model's context.
        num_previews: at most so many moments of each picture's drawing are kept in
            ``Story.previews``.
        write_on: the model may write on behind each given page's text before it draws the page; one
            that was taught to say looks again does so, and draws what it said.
        settings: of an earlier story: what it was made with, unless other options say otherwise.
            ``generate(pipeline, story.prompt, settings=story.settings)`` makes it again.
        stream: yield ``StoryEvent`` as they come instead of returning the whole.
        progress: called after every step with the page (from 0) and the positions made so far.

    Returns:
        A ``Story``; a list of them for many documents; an iterator of events when streaming.

    Raises:
        ValueError: if an option is out of range, a file is no picture, or prompt and pictures do
            not fit the context.
    """
    prompts, is_single = split_prompts(parts)
    made = settings or {}
    pipeline = pipeline.draw_by(objective or made.get("objective"))
    seeds = choose_seeds(made.get("seed") if seed is None else seed, len(prompts))
    texts = split_page_texts(page_texts, len(prompts), is_single)
    if texts is None and num_images is None:
        num_images, recorded = made.get("num_images"), made.get("page_texts")
        texts = [list(recorded)] * len(prompts) if recorded else None
    counts = _counts(num_images, texts, len(prompts))
    plan = change_plan(
        base_plan(pipeline, settings),
        text={"temperature": text_temperature, "top_k": text_top_k, "top_p": text_top_p},
        pictures={
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "guidance_scale": guidance_scale,
            "image_guidance_scale": image_guidance_scale,
            "num_steps": num_steps,
        },
        first_guidance_scale=first_guidance_scale,
        max_images=max_images,
        max_text_tokens=max_text_tokens,
        cache_policy=cache_policy,
        num_previews=num_previews,
        write_on=write_on,
    )
    tellings = [
        Telling.begin(pipeline, pieces, texts[i] if texts else None, counts[i], seeds[i])
        for i, pieces in enumerate(prompts)
    ]
    events = tell(pipeline, tellings, plan, progress=progress, decode_now=stream)
    if stream:
        return events
    stories = {event.index: event.story for event in events if event.story is not None}
    found = [stories[i] for i in range(len(prompts))]
    return found[0] if is_single else found


def _counts(
    num_images: int | Sequence[int | None] | None, texts: list[list[str]] | None, count: int
) -> list[int | None]:
    """Pictures to draw in each document; None lets the model end it.

    Raises:
        ValueError: if they are negative, of another length, or contradict the pages' texts.
    """
    counts: list[int | None]
    if num_images is None or isinstance(num_images, int):
        counts = [num_images] * count
    else:
        counts = list(num_images)
    if len(counts) != count or any(x is not None and x < 0 for x in counts):
        raise ValueError(
            f"num_images must be 0 or larger, got {num_images}: give one, or {count} of them"
        )
    for x, pages in zip(counts, texts or (), strict=False):
        if x is not None and x != len(pages):
            raise ValueError(f"num_images is {x}, but page_texts has {len(pages)} texts")
    return counts
