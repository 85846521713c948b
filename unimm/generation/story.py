"""Stories: text and pictures in turn, from one prompt or many."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, overload

import torch
from PIL import Image

from unimm.document import ImageTokens, Part
from unimm.generation.book import Story
from unimm.generation.writer import Plan, Progress, Request, TextEvent, write
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline, decode_images, encode_image

Piece = str | Image.Image
Prompt = str | Sequence[Piece]
"""The beginning of one story: a text, or texts and pictures in turn."""

_PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what a character cut in the middle decodes to


@dataclass(frozen=True, kw_only=True)
class StoryEvent:
    """A piece of a story that is being written; exactly one of the last three is set.

    Attributes:
        index: which story of the call.
        text: that was appended.
        image: that was drawn.
        story: the whole, last of all.
    """

    index: int
    text: str | None = None
    image: Image.Image | None = None
    story: Story | None = None


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
    pipeline: Pipeline,
    prompt: Prompt | Sequence[Prompt],
    *,
    num_images: int | None = None,
    max_images: int = 8,
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
    num_steps: int | None = None,
    objective: str | None = None,
    max_text_tokens: int = 96,
    stream: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Write and draw a story.

    Args:
        pipeline: the model.
        prompt: how the story begins: a text, which may be empty, or a list of texts and pictures
            that stand already. A list without pictures, or a list of lists, is many stories, which
            are made together; their prompts then hold equally many pictures.
        num_images: pictures to draw: the story ends with the last, 0 writes text only. By default
            the model ends the story.
        max_images: bound on the pictures when the model ends the story.
        page_texts: text before each picture to draw, instead of the model's own: a list of texts,
            for many stories a list of lists. The first one goes on from the prompt.
        seed: of all randomness; story ``i`` of many gets ``seed + i``, or its own from a list. By
            default one is drawn; it is recorded in ``settings``.
        text_temperature: of the text; 0 is greedy. Options that are None are the model's defaults.
        text_top_k: keeps the k most likely text tokens; 0 keeps all.
        text_top_p: keeps the likeliest text tokens that have this probability together.
        temperature: of the pictures; 0 is greedy.
        top_k: as ``text_top_k``, for pictures.
        top_p: as ``text_top_p``, for pictures.
        guidance_scale: of the pictures; 1 is off.
        first_guidance_scale: of the story's first picture, if it shall differ.
        num_steps: of the pictures, as in ``generate_image``.
        objective: of the pictures, as in ``generate_image``.
        max_text_tokens: bound on a page's text.
        stream: yield ``StoryEvent`` as they come instead of returning the whole.
        progress: called after every step with the page (from 0) and the positions made so far.

    Returns:
        A ``Story``; a list of them for many prompts; an iterator of events when streaming.

    Raises:
        ValueError: if an option is out of range, or prompt and pictures do not fit the context.
    """
    starts, is_single = _split_prompts(prompt)
    texts = _split_page_texts(page_texts, len(starts), is_single)
    if texts is not None:
        if num_images is not None and num_images != len(texts[0]):
            raise ValueError(
                f"num_images is {num_images}, but page_texts has {len(texts[0])} texts"
            )
        num_images = len(texts[0])
    _check_counts(num_images=num_images, max_images=max_images, max_text_tokens=max_text_tokens)
    pipeline = pipeline.draw_by(objective)
    defaults = pipeline.sampler
    first_scale = guidance_scale if first_guidance_scale is None else first_guidance_scale
    pictures = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "num_steps": num_steps,
    }
    plan = Plan(
        text=override(
            defaults.text, temperature=text_temperature, top_k=text_top_k, top_p=text_top_p
        ),
        first_page=override(defaults.first_page, guidance_scale=first_scale, **pictures),
        later_pages=override(defaults.later_pages, guidance_scale=guidance_scale, **pictures),
        num_images=num_images,
        max_images=max_images,
        max_text_tokens=max_text_tokens,
    )
    seeds = choose_seeds(seed, len(starts))
    drafts = [
        _Draft.start(pipeline, pieces, texts[i] if texts else None, seeds[i])
        for i, pieces in enumerate(starts)
    ]
    given = sorted({draft.request.num_given for draft in drafts})
    if len(given) > 1:
        raise ValueError(
            f"prompts of one call must hold equally many pictures, these hold {given}: "
            "make the stories in separate calls"
        )
    settings = _settings(pipeline, plan)
    events = _events(pipeline, drafts, plan, settings, progress, decode_now=stream)
    if stream:
        return events
    stories = {event.index: event.story for event in events if event.story is not None}
    found = [stories[i] for i in range(len(drafts))]
    return found[0] if is_single else found


@dataclass
class _Draft:
    """A story being written."""

    request: Request
    prompt: list[Piece]
    parts: list[list[int] | ImageTokens | Image.Image]
    shown: str = ""  # text of the last part that was already told

    @staticmethod
    def start(
        pipeline: Pipeline, pieces: list[Piece], page_texts: list[str] | None, seed: int
    ) -> "_Draft":
        prompt, encode = list(pieces), pipeline.text_tokenizer.encode
        if page_texts and pieces and isinstance(pieces[-1], str):
            page_texts = [" ".join(filter(None, (pieces[-1], page_texts[0]))), *page_texts[1:]]
            pieces = pieces[:-1]
        given: list[Part] = []
        parts: list[list[int] | ImageTokens | Image.Image] = []
        for piece in pieces:
            if isinstance(piece, str):
                ids = encode(piece)
                given.append(Part(text_ids=torch.tensor(ids, dtype=torch.int64)))
                parts.append(ids)
            else:
                given.append(Part(tokens=encode_image(pipeline, piece), is_drawn=False))
                parts.append(piece)
        ids = tuple(encode(text) for text in page_texts) if page_texts is not None else None
        request = Request(parts=tuple(given), page_texts=ids, seed=seed)
        return _Draft(request=request, prompt=prompt, parts=parts)

    def add_text(self, ids: list[int]) -> list[int]:
        """Append ids to the last text, or begin one; return all of it."""
        last = self.parts[-1] if self.parts else None
        if not isinstance(last, list):
            last = list[int]()
            self.parts.append(last)
            self.shown = ""
        last += ids
        return last


def _events(
    pipeline: Pipeline,
    drafts: list[_Draft],
    plan: Plan,
    settings: dict[str, Any],
    progress: Progress | None,
    *,
    decode_now: bool,
) -> Iterator[StoryEvent]:
    """Turn the writer's ids and tokens into texts and pictures."""
    decode = pipeline.text_tokenizer.decode
    for draft in drafts:
        if draft.parts and isinstance(draft.parts[-1], list):
            draft.shown = decode(draft.parts[-1])
    for event in write(pipeline, [draft.request for draft in drafts], plan, progress=progress):
        draft = drafts[event.document]
        if not isinstance(event, TextEvent):
            picture = decode_images(pipeline, [event.tokens])[0] if decode_now else event.tokens
            draft.parts.append(picture)
            if isinstance(picture, Image.Image):
                yield StoryEvent(index=event.document, image=picture)
            continue
        ids = draft.add_text(event.ids)
        if decode_now:
            text = decode(ids).rstrip(_PARTIAL)  # the rest of a character comes with later ids
            if len(text) > len(draft.shown):
                yield StoryEvent(index=event.document, text=text[len(draft.shown) :])
                draft.shown = text
    _decode_pictures(pipeline, drafts)
    for index, draft in enumerate(drafts):
        parts = [decode(part) if isinstance(part, list) else part for part in draft.parts]
        story = Story(
            parts=[cast(Piece, part) for part in parts if part != ""],
            settings={
                "prompt": [x if isinstance(x, str) else "<picture>" for x in draft.prompt],
                "seed": draft.request.seed,
                **settings,
            },
        )
        yield StoryEvent(index=index, story=story)


def _decode_pictures(pipeline: Pipeline, drafts: list[_Draft]) -> None:
    """Draw all pictures of all stories together."""
    places = [
        (draft.parts, i, part)
        for draft in drafts
        for i, part in enumerate(draft.parts)
        if isinstance(part, ImageTokens)
    ]
    pictures = decode_images(pipeline, [tokens for _, _, tokens in places])
    for (parts, i, _), picture in zip(places, pictures, strict=True):
        parts[i] = picture


def override(sampling: SamplingConfig, **options: float | None) -> SamplingConfig:
    """Replace the options that are given."""
    given: dict[str, Any] = {name: x for name, x in options.items() if x is not None}
    return replace(sampling, **given)


def choose_seeds(seed: int | Sequence[int] | None, count: int) -> list[int]:
    """One seed a document: counted up from the given one, or from one that is drawn.

    Raises:
        ValueError: on a list of another length or a negative seed.
    """
    first = secrets.randbelow(2**31) if seed is None else seed
    seeds = [first + i for i in range(count)] if isinstance(first, int) else list(first)
    if len(seeds) != count or any(value < 0 for value in seeds):
        raise ValueError(f"seed must be 0 or larger, one or {count} of them; got {seed}")
    return seeds


def _settings(pipeline: Pipeline, plan: Plan) -> dict[str, Any]:
    drawing = {"objective": pipeline.drawing.name}
    return {"model": pipeline.name, **drawing, **pipeline.hashes, **asdict(plan)}


def _split_prompts(prompt: Prompt | Sequence[Prompt]) -> tuple[list[list[Piece]], bool]:
    """Tell one story's pieces from many stories' prompts; neighbouring texts become one."""
    if isinstance(prompt, str):
        return [[prompt]], True
    if any(isinstance(piece, Image.Image) for piece in prompt):
        return [_join_texts(cast(Sequence[Piece], prompt))], True
    if not prompt:
        raise ValueError("no prompt is given; one story without a beginning has the prompt ''")
    return [
        _join_texts([item] if isinstance(item, str) else cast(Sequence[Piece], item))
        for item in prompt
    ], False


def _join_texts(pieces: Sequence[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for piece in pieces:
        if not isinstance(piece, (str, Image.Image)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(
                f"a prompt is made of texts and pictures, found {type(piece).__name__}"
            )
        if joined and isinstance(piece, str) and isinstance(joined[-1], str):
            joined[-1] = " ".join(filter(None, (joined[-1], piece)))
        else:
            joined.append(piece)
    return joined


def _split_page_texts(
    page_texts: Sequence[str] | Sequence[Sequence[str]] | None, count: int, is_single: bool
) -> list[list[str]] | None:
    if page_texts is None:
        return None
    rows = [page_texts] if is_single else page_texts
    if any(isinstance(row, str) for row in rows):
        raise ValueError("page_texts of many stories must be a list of lists of texts")
    lists = [[str(text) for text in row] for row in rows]
    if len(lists) != count or len({len(row) for row in lists}) != 1 or not lists[0]:
        raise ValueError(
            f"page_texts must give each of the {count} stories equally many texts, one or more; "
            f"got {[len(row) for row in lists]}"
        )
    return lists


def _check_counts(**counts: int | None) -> None:
    for name, count in counts.items():
        lowest = 0 if name == "num_images" else 1
        if count is not None and count < lowest:
            raise ValueError(f"{name} must be {lowest} or larger, got {count}")
