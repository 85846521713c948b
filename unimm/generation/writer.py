"""The loop of a story: text until ``<boi>``, a picture, text ... until ``<eos>``.

It never asks which objective draws. All documents of a call go page by page together; one that has
ended leaves the batch.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from unimm.document import Document, ImageTokens, Part, mix_seed
from unimm.generation.engine import Engine, picture_lengths
from unimm.nn.sampling import SamplingConfig, sample_from_logits
from unimm.pipeline import Pipeline

Progress = Callable[[int, int], None]
"""Called after every step with the page being made (from 0) and the positions made so far."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall be written.

    Attributes:
        text: how text is drawn.
        first_page: how the first picture of a document is drawn.
        later_pages: how pictures that follow another are drawn.
        num_images: pictures to draw; None lets the model end the story.
        max_images: bound on the pictures, when the model ends the story.
        max_text_tokens: bound on a page's text; the picture begins when it is reached.
    """

    text: SamplingConfig
    first_page: SamplingConfig
    later_pages: SamplingConfig
    num_images: int | None = None
    max_images: int = 8
    max_text_tokens: int = 96

    @property
    def limit(self) -> int:
        """Pictures after which the story ends."""
        return self.max_images if self.num_images is None else self.num_images


@dataclass(frozen=True, kw_only=True)
class Request:
    """One document to go on with.

    Attributes:
        parts: tokenised text and pictures that stand already.
        page_texts: ids of the text before each picture to draw; None lets the model write.
        seed: of all the document's randomness.
    """

    parts: tuple[Part, ...]
    page_texts: tuple[list[int], ...] | None = None
    seed: int

    @property
    def num_given(self) -> int:
        """Pictures that stand already."""
        return sum(not part.is_text for part in self.parts)

    def document(self) -> Document:
        """The standing parts, an empty text if there is none."""
        empty = Part(text_ids=torch.zeros(0, dtype=torch.int64))
        return Document(parts=self.parts or (empty,))


@dataclass(frozen=True, kw_only=True)
class TextEvent:
    """Text ids were appended to a document."""

    document: int
    ids: list[int]


@dataclass(frozen=True, kw_only=True)
class PictureEvent:
    """A document's next picture is drawn: ``codes (h, w)`` or latents, on the CPU."""

    document: int
    tokens: ImageTokens


Event = TextEvent | PictureEvent


@dataclass
class _Page:
    """A document's text on the page being written."""

    room: int  # tokens that the page may still take
    is_done: bool = False
    has_ended: bool = False  # with ``<eos>``: no picture follows
    ids: list[int] = field(default_factory=list[int])


@torch.inference_mode()
def write(
    pipeline: Pipeline,
    requests: Sequence[Request],
    plan: Plan,
    *,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Write documents, telling each piece as it comes.

    Args:
        pipeline: model and tokenizers.
        requests: with equally many given pictures each, so that they can go page by page.
        plan: common to all.
        progress: told of every step.

    Raises:
        ValueError: if a prompt, or what it asks for, does not fit the context.
    """
    writer = _Writer(pipeline, requests, plan, progress)
    yield from writer.run()


class _Writer:
    def __init__(
        self,
        pipeline: Pipeline,
        requests: Sequence[Request],
        plan: Plan,
        progress: Progress | None,
    ) -> None:
        self.plan, self.requests, self.progress = plan, requests, progress
        self.model, special = pipeline.model, pipeline.model.special
        self.max_length = self.model.config.backbone.max_seq_len
        self.kept, self.peak = picture_lengths(self.model, pipeline.objective)
        self.num_given = requests[0].num_given
        self.page, self.positions = 0, 0
        # Ids that are no text: special ones, and rows that only fill the embedding up.
        silent = [special.pad, special.bos, special.null, special.eoi]
        self.silent = silent + list(range(pipeline.text_tokenizer.vocab_size, special.vocab_size))
        prompts = [self._prompt_length(request) for request in requests]
        self._check_room(prompts)
        pages = [self._sampling(page) for page in range(plan.limit)]
        self.engine = Engine(
            self.model,
            [request.document() for request in requests],
            generators=[
                torch.Generator().manual_seed(mix_seed(request.seed, 0, 0)) for request in requests
            ],
            capacity=self._capacity(max(prompts)),
            is_guided=any(sampling.guidance_scale != 1 for sampling in pages),
            objective=pipeline.objective,
            on_step=self._count,
        )
        self.active = list(range(len(requests)))  # request of each of the engine's documents

    def run(self) -> Iterator[Event]:
        limit = self.plan.limit
        for page in range(limit + (self.plan.num_images == 0)):
            self.page = page
            pages = yield from self._write_page()
            self._keep([i for i, text in enumerate(pages) if not text.has_ended])
            if not self.active or page == limit:
                return
            drawn = self.engine.draw(self._sampling(page))
            for i, document in enumerate(self.active):
                yield PictureEvent(document=document, tokens=drawn[i])
            if page + 1 == limit:
                return
            self.engine.end_picture()
            self._keep([i for i, n in enumerate(self.engine.lengths()) if self._fits(n)])
            if not self.active:
                return

    def _write_page(self) -> Generator[Event, None, list[_Page]]:
        """Write every document's text up to its next picture, or to its end."""
        pages = [_Page(room=self._room(length)) for length in self.engine.lengths()]
        given = [self.requests[d].page_texts for d in self.active]
        if given[0] is not None:
            texts = [list(text[self.page]) if text else [] for text in given]
            self.engine.add_text(texts)
            for document, ids in zip(self.active, texts, strict=True):
                yield TextEvent(document=document, ids=ids)
            return pages
        banned = torch.tensor(self._banned(), device=self.engine.device)
        while True:
            self._close_full(pages)
            if all(page.is_done for page in pages):
                return pages
            chosen = self._sample_text(pages, banned)
            new: list[list[int]] = []
            for i, (page, token) in enumerate(zip(pages, chosen, strict=True)):
                if page.is_done or self._ends(page, token):
                    new.append([])
                    continue
                new.append([token])
                page.room -= 1
                yield TextEvent(document=self.active[i], ids=[token])
            self.engine.add_text(new)

    def _sample_text(self, pages: list[_Page], banned: Tensor) -> list[int]:
        """Draw a token a document; one that waits draws no random number."""
        logits = self.engine.text_logits().index_fill(1, banned, float("-inf"))
        noise = [
            0.0 if page.is_done else float(torch.rand((), generator=generator))
            for page, generator in zip(pages, self.engine.generators, strict=True)
        ]
        uniform = torch.tensor(noise).to(logits.device)
        tokens = sample_from_logits(logits, uniform, self.plan.text)
        return cast(list[int], tokens.tolist())  # pyright: ignore[reportUnknownMemberType]

    def _ends(self, page: _Page, token: int) -> bool:
        special = self.model.special
        page.has_ended = token == special.eos
        page.is_done = token in (special.eos, special.boi)
        return page.is_done

    def _close_full(self, pages: list[_Page]) -> None:
        for page in pages:
            if page.room <= 0 and not page.is_done:
                page.is_done, page.has_ended = True, self.plan.limit == 0

    def _banned(self) -> list[int]:
        special, banned = self.model.special, list(self.silent)
        if self.plan.limit == 0:
            banned.append(special.boi)
        elif self.plan.num_images is not None:
            banned.append(special.eos)
        return banned

    def _sampling(self, page: int) -> SamplingConfig:
        is_first = page + self.num_given == 0
        return self.plan.first_page if is_first else self.plan.later_pages

    def _keep(self, documents: list[int]) -> None:
        self.active = [self.active[i] for i in documents]
        if documents:
            self.engine.keep(documents)

    def _count(self, num_positions: int) -> None:
        self.positions += num_positions
        if self.progress:
            self.progress(self.page, self.positions)

    # What fits.

    def _prompt_length(self, request: Request) -> int:
        texts = [part.text_ids for part in request.parts if part.text_ids is not None]
        return 1 + sum(map(len, texts)) + request.num_given * self.kept

    def _pictures_to_come(self) -> int:
        """Pictures that the context must still hold, the one being approached included."""
        if self.plan.limit == 0:
            return 0
        return 1 if self.plan.num_images is None else self.plan.limit - self.page

    def _needed(self, pictures: int) -> int:
        """Positions for so many pictures; only the last may take more while it is drawn."""
        return 0 if pictures == 0 else (pictures - 1) * self.kept + self.peak

    def _room(self, length: int) -> int:
        """Text tokens that the next page of a document may take."""
        room = self.max_length - length - self._needed(self._pictures_to_come())
        return min(self.plan.max_text_tokens, room)

    def _fits(self, length: int) -> bool:
        """Whether another page fits; when the pictures are counted, that is checked beforehand."""
        return self.plan.num_images is not None or length + self.peak <= self.max_length

    def _check_room(self, prompts: list[int]) -> None:
        pictures = self._pictures_to_come()
        for request, length in zip(self.requests, prompts, strict=True):
            texts = sum(map(len, request.page_texts or ()))
            if length > self.max_length:
                raise ValueError(
                    f"the prompt takes {length} positions, but the model's context has "
                    f"{self.max_length}: shorten it"
                )
            if length + texts + self._needed(pictures) > self.max_length:
                raise ValueError(
                    f"the prompt takes {length} positions, the pages' texts {texts} and {pictures} "
                    f"pictures {self._needed(pictures)}, but the model's context has "
                    f"{self.max_length}: shorten the prompt or ask for fewer pictures"
                )

    def _capacity(self, longest_prompt: int) -> int:
        """Positions of a row of the cache, padding of uneven texts included."""
        given = [sum(map(len, request.page_texts or ())) for request in self.requests]
        pages = max(self.plan.limit, 1)
        text = max(given) if any(given) else pages * self.plan.max_text_tokens
        whole = longest_prompt + text + pages * self.kept + self.peak
        padding = max([self.plan.max_text_tokens, *given]) + 2
        return min(whole, self.max_length) + padding
