"""The loop of a document: text until ``<boi>``, a picture, text ... until ``<eos>``.

It never asks which objective draws. The documents of a call go in rounds: those that write, write;
then those that draw, draw together. Which page a document is on, and what it still has to do, is
its own affair; one that has ended leaves the batch.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from unimm.document import ImageTokens, mix_seed
from unimm.generation.engine import Engine
from unimm.generation.previews import Recorder
from unimm.generation.request import Plan, Request
from unimm.generation.room import Room
from unimm.nn.sampling import SamplingConfig, sample_from_logits
from unimm.pipeline import Pipeline

Progress = Callable[[int, int], None]
"""Called after every step with the page being made (from 0) and the positions made so far."""


@dataclass(frozen=True, kw_only=True)
class TextEvent:
    """Text ids were appended to a document."""

    document: int
    ids: list[int]


@dataclass(frozen=True, kw_only=True)
class PictureEvent:
    """A document's next picture is drawn: ``codes (h, w)`` or latents, on the CPU.

    Attributes:
        document: which.
        tokens: the picture.
        previews: what there was of it at the plan's moments of its drawing.
    """

    document: int
    tokens: ImageTokens
    previews: tuple[ImageTokens, ...] = ()


Event = TextEvent | PictureEvent


@dataclass
class _Draft:
    """Where a document stands.

    Attributes:
        number: of its request.
        request: what it is to become.
        wanted: pictures to draw; None if the model ends it.
        limit: pictures after which it ends.
        drawn: pictures drawn so far.
        room: text tokens that the page may still take.
        is_done: the page's text is complete.
        has_ended: no picture follows.
    """

    number: int
    request: Request
    wanted: int | None
    limit: int
    drawn: int = 0
    room: int = 0
    is_done: bool = False
    has_ended: bool = False

    def begin_page(self, room: int) -> None:
        self.room, self.is_done = room, False

    def to_come(self) -> int:
        """Pictures that the context must still hold, the one being approached included."""
        if self.limit == 0:
            return 0
        return 1 if self.wanted is None else self.limit - self.drawn


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
        requests: of any kinds, mixed.
        plan: common to all.
        progress: told of every step.

    Raises:
        ValueError: if a prompt, or what it asks for, does not fit the context.
    """
    writer = _Writer(pipeline, requests, plan, progress)
    try:
        yield from writer.run()
    finally:
        writer.engine.close()
        # The two hold each other: the cache, gigabytes on a GPU, would wait for the collector.
        del writer.engine


class _Writer:
    def __init__(
        self,
        pipeline: Pipeline,
        requests: Sequence[Request],
        plan: Plan,
        progress: Progress | None,
    ) -> None:
        self.plan, self.progress = plan, progress
        # A first picture has no earlier ones to drop.
        self.first_page = replace(plan.first_page, image_guidance_scale=1.0)
        self.model, special = pipeline.model, pipeline.model.special
        self.page, self.positions = 0, 0
        # Ids that are no text: special ones, and rows that only fill the embedding up.
        silent = [special.pad, special.bos, special.null, special.eoi]
        self.silent = silent + list(range(pipeline.text_tokenizer.vocab_size, special.vocab_size))
        self.active = [self._draft(number, request) for number, request in enumerate(requests)]
        self.room = Room(self.model, plan, pipeline.objective)
        for draft in self.active:
            self.room.check(draft.request, draft.limit, draft.to_come())
        samplings = {self._sampling(d, page) for d in self.active for page in range(d.limit)[:2]}
        self.engine = Engine(
            self.model,
            [request.document() for request in requests],
            generators=[
                torch.Generator().manual_seed(mix_seed(request.seed, 0, 0)) for request in requests
            ],
            capacity=self.room.capacity([(d.request, d.limit) for d in self.active]),
            is_guided=any(sampling.guidance_scale != 1 for sampling in samplings),
            is_image_guided=any(sampling.image_guidance_scale != 1 for sampling in samplings),
            objective=pipeline.objective,
            policy=plan.cache_policy,
            on_step=self._count,
        )

    def run(self) -> Iterator[Event]:
        while self.active:
            yield from self._write_texts()
            self._keep([not draft.has_ended for draft in self.active])
            if not self.active:
                return
            yield from self._draw()
            self._keep([draft.drawn < draft.limit for draft in self.active])
            if not self.active:
                return
            self.engine.end_picture()
            lengths = zip(self.active, self.engine.lengths(), strict=True)
            # When the pictures are counted, that they fit was checked beforehand.
            self._keep([d.wanted is not None or self.room.fits(length) for d, length in lengths])
            self.page += 1

    def _draft(self, number: int, request: Request) -> _Draft:
        wanted = request.wanted(self.plan)
        limit = self.plan.max_images if wanted is None else wanted
        return _Draft(number=number, request=request, wanted=wanted, limit=limit)

    def _write_texts(self) -> Generator[Event, None, None]:
        """Write every document's text up to its next picture, or to its end."""
        new: list[list[int]] = []
        for draft, length in zip(self.active, self.engine.lengths(), strict=True):
            texts = draft.request.page_texts
            to_add = sum(map(len, texts[draft.drawn :])) if texts else 0
            draft.begin_page(self.room.for_text(length + to_add, draft.to_come()))
            new.append(list(texts[draft.drawn]) if texts else [])
            draft.is_done = texts is not None and not self.plan.write_on
            if texts is not None:
                yield TextEvent(document=draft.number, ids=new[-1])
        if any(new):
            self.engine.add_text(new)
        banned: Tensor | None = None  # made if the model writes at all
        while True:
            for draft in self.active:
                if draft.room <= 0 and not draft.is_done:
                    draft.is_done, draft.has_ended = True, draft.limit == 0
            if all(draft.is_done for draft in self.active):
                return
            banned = self._banned() if banned is None else banned
            tokens = self._sample_text(banned)
            new = [self._take(draft, x) for draft, x in zip(self.active, tokens, strict=True)]
            for draft, ids in zip(self.active, new, strict=True):
                if ids:
                    yield TextEvent(document=draft.number, ids=ids)
            self.engine.add_text(new)

    def _sample_text(self, banned: Tensor) -> list[int]:
        """Draw a token a document; one that waits draws no random number."""
        logits = self.engine.text_logits().masked_fill(banned, float("-inf"))
        noise = [
            0.0 if draft.is_done else float(torch.rand((), generator=generator))
            for draft, generator in zip(self.active, self.engine.generators, strict=True)
        ]
        uniform = torch.tensor(noise).to(logits.device)
        tokens = sample_from_logits(logits, uniform, self.plan.text)
        return cast(list[int], tokens.tolist())  # pyright: ignore[reportUnknownMemberType]

    def _take(self, draft: _Draft, token: int) -> list[int]:
        """What a drawn token adds to a document's text."""
        if draft.is_done:
            return []
        special = self.model.special
        draft.has_ended = token == special.eos
        draft.is_done = token in (special.eos, special.boi)
        if draft.is_done:
            return []
        draft.room -= 1
        return [token]

    def _banned(self) -> Tensor:
        """Tokens that each document cannot have now, ``(B, V)`` bool."""
        special = self.model.special
        banned = torch.zeros(len(self.active), special.vocab_size, dtype=torch.bool)
        banned[:, self.silent] = True
        for row, draft in enumerate(self.active):
            if draft.limit == 0:
                banned[row, special.boi] = True
            elif draft.wanted is not None:
                banned[row, special.eos] = True
        return banned.to(self.engine.device)

    def _draw(self) -> Generator[Event, None, None]:
        """Draw every document's next picture, those of one sampling together."""
        groups: dict[SamplingConfig, list[int]] = {}
        for place, draft in enumerate(self.active):
            groups.setdefault(self._sampling(draft, draft.drawn), []).append(place)
        for sampling, places in groups.items():
            recorder = Recorder(self.plan.num_previews)
            watch = recorder.watch if self.plan.num_previews else None
            tokens = self.engine.draw(sampling, places, watch=watch)
            for i, place in enumerate(places):
                draft = self.active[place]
                draft.drawn += 1
                previews = recorder.of(i)
                yield PictureEvent(document=draft.number, tokens=tokens[i], previews=previews)

    def _sampling(self, draft: _Draft, page: int) -> SamplingConfig:
        """How a document's picture is drawn."""
        is_first = draft.request.num_given + page == 0
        return self.first_page if is_first else self.plan.later_pages

    def _keep(self, stays: list[bool]) -> None:
        places = [place for place, is_kept in enumerate(stays) if is_kept]
        self.active = [self.active[place] for place in places]
        if places:
            self.engine.keep(places)

    def _count(self, num_positions: int) -> None:
        self.positions += num_positions
        if self.progress:
            self.progress(self.page, self.positions)
