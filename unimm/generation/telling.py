"""Turns what the writer yields into texts, pictures and finished stories."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from unimm.document import ImageTokens
from unimm.generation.book import Story
from unimm.generation.previews import decode_previews
from unimm.generation.prompts import Given, Piece, read_piece
from unimm.generation.request import Plan, Request
from unimm.generation.settings import record
from unimm.generation.writer import PictureEvent, Progress, write
from unimm.pictures import decode_images
from unimm.pipeline import Pipeline

_PARTIAL = "\N{REPLACEMENT CHARACTER}"  # what a character cut in the middle decodes to


@dataclass(frozen=True, kw_only=True)
class StoryEvent:
    """A piece of a document that is being made.

    Attributes:
        index: which document of the call.
        text: that was appended.
        image: that was drawn.
        part: that is finished: a whole text, the prompt's beginning of it included, or ``image``.
        story: the whole, last of all.
    """

    index: int
    text: str | None = None
    image: Image.Image | None = None
    part: str | Image.Image | None = None
    story: Story | None = None


@dataclass
class Telling:
    """A document being made, in parts that can be shown.

    Attributes:
        request: what the writer is asked.
        settings: prompt, seed, pages' texts: what this document alone was asked.
        shown: the parts' pictures as they were given; None where tokens must be decoded.
        tokens: the parts: text ids or tokens.
        previews: of each picture.
        told: text of the last part that was already told.
        is_told: whether the last part was told as finished.
    """

    request: Request
    settings: dict[str, Any]
    shown: list[Image.Image | None]
    tokens: list[list[int] | ImageTokens]
    previews: list[tuple[ImageTokens, ...]] = field(default_factory=list[tuple[ImageTokens, ...]])
    told: str = ""
    is_told: bool = False

    @staticmethod
    def begin(
        pipeline: Pipeline,
        pieces: list[Piece],
        page_texts: list[str] | None,
        num_images: int | None,
        seed: int,
    ) -> "Telling":
        """Read the prompt; what stands before the first page's text becomes its beginning."""
        settings: dict[str, Any] = {"prompt": _describe(pieces), "seed": seed}
        settings |= {"page_texts": page_texts, "num_images": num_images}
        encode = pipeline.text_tokenizer.encode
        if page_texts and pieces and isinstance(pieces[-1], str):
            page_texts = [" ".join(filter(None, (pieces[-1], page_texts[0]))), *page_texts[1:]]
            pieces = pieces[:-1]
        given: list[Given] = [read_piece(pipeline, piece) for piece in pieces]
        texts = tuple(encode(text) for text in page_texts) if page_texts is not None else None
        pictures = [None if isinstance(x.shown, str) else x.shown for x in given]
        return Telling(
            request=Request(
                parts=tuple(x.part for x in given),
                page_texts=texts,
                num_images=num_images,
                seed=seed,
            ),
            settings=settings,
            shown=pictures,
            tokens=[x.tokens for x in given],
            previews=[() for picture in pictures if picture is not None],
        )

    def add_text(self, ids: list[int]) -> list[int]:
        """Append ids to the last text, or begin one; return all of it."""
        last = self.tokens[-1] if self.tokens else None
        if not isinstance(last, list):
            last = list[int]()
            self.tokens.append(last)
            self.shown.append(None)
            self.told, self.is_told = "", False
        last += ids
        return last

    def add_picture(self, event: PictureEvent, picture: Image.Image | None) -> None:
        """Append a drawn picture, decoded or not."""
        self.tokens.append(event.tokens)
        self.shown.append(picture)
        self.previews.append(event.previews)


def tell(
    pipeline: Pipeline,
    tellings: Sequence[Telling],
    plan: Plan,
    *,
    progress: Progress | None,
    decode_now: bool,
) -> Iterator[StoryEvent]:
    """Write documents and tell of them; the last events hold the stories.

    Args:
        pipeline: the model.
        tellings: the documents.
        plan: common to all.
        progress: told of every step.
        decode_now: tell texts and pictures as they come; else only the stories, whose pictures are
            then decoded together.
    """
    decode = pipeline.text_tokenizer.decode
    for telling in tellings:
        if telling.tokens and isinstance(telling.tokens[-1], list):
            telling.told = decode(telling.tokens[-1])
    requests = [telling.request for telling in tellings]
    for event in write(pipeline, requests, plan, progress=progress):
        index, telling = event.document, tellings[event.document]
        if isinstance(event, PictureEvent):
            picture = decode_images(pipeline, [event.tokens])[0] if decode_now else None
            if picture is not None:
                yield from _finished_text(pipeline, index, telling)
                yield StoryEvent(index=index, image=picture, part=picture)
            telling.add_picture(event, picture)
            continue
        ids = telling.add_text(event.ids)
        if decode_now:
            text = decode(ids).rstrip(_PARTIAL)  # the rest of a character comes with later ids
            if len(text) > len(telling.told):
                yield StoryEvent(index=index, text=text[len(telling.told) :])
                telling.told = text
    for index, telling in enumerate(tellings):
        if decode_now:
            yield from _finished_text(pipeline, index, telling)
    _decode_pictures(pipeline, tellings)
    made = record(pipeline, plan)
    for index, telling in enumerate(tellings):
        yield StoryEvent(index=index, story=_story(pipeline, telling, copy.deepcopy(made)))


def _finished_text(pipeline: Pipeline, index: int, telling: Telling) -> Iterator[StoryEvent]:
    """Tell the last part as finished, if it is text and was not told so."""
    last = telling.tokens[-1] if telling.tokens else None
    if isinstance(last, list) and not telling.is_told:
        telling.is_told = True
        text = pipeline.text_tokenizer.decode(last)
        if text:
            yield StoryEvent(index=index, part=text)


def _story(pipeline: Pipeline, telling: Telling, made: dict[str, Any]) -> Story:
    parts: list[str | Image.Image] = []
    tokens: list[list[int] | ImageTokens] = []
    for part, picture in zip(telling.tokens, telling.shown, strict=True):
        shown = pipeline.text_tokenizer.decode(part) if isinstance(part, list) else picture
        assert shown is not None
        if shown != "":
            parts.append(shown)
            tokens.append(part)
    drawn = [
        (part, picture)
        for part, picture in zip(telling.tokens, telling.shown, strict=True)
        if isinstance(part, ImageTokens) and picture is not None
    ]
    previews = [
        decode_previews(pipeline, moments, *picture)
        for moments, picture in zip(telling.previews, drawn, strict=True)
    ]
    return Story(
        parts=parts,
        settings={**made, **telling.settings},
        tokens=tuple(tokens),
        previews=tuple(previews),
    )


def _decode_pictures(pipeline: Pipeline, tellings: Sequence[Telling]) -> None:
    """Draw all pictures of all documents that are not drawn yet, together."""
    places = [
        (telling.shown, i, part)
        for telling in tellings
        for i, part in enumerate(telling.tokens)
        if isinstance(part, ImageTokens) and telling.shown[i] is None
    ]
    pictures = decode_images(pipeline, [tokens for _, _, tokens in places])
    for (shown, i, _), picture in zip(places, pictures, strict=True):
        shown[i] = picture


def _describe(pieces: Sequence[Piece]) -> list[str | dict[str, int]]:
    """A prompt as plain data: texts, and which of the story's pictures stand between them."""
    found: list[str | dict[str, int]] = []
    for piece in pieces:
        pictures = sum(isinstance(x, dict) for x in found)
        found.append(piece if isinstance(piece, str) else {"picture": pictures})
    return found
