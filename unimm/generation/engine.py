"""A batch of documents being written: text, pictures, and what guidance branches read of both.

Only documents that draw need their branches: a branch reads the text it has missed just before the
next picture. Legend: ``B`` documents, ``G`` guidance branches, ``R`` rows of a step, ``n`` new
positions, ``D`` width.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from unimm.document import Document, Ids, ImageTokens, Segment
from unimm.generation.branches import Branch, branches_of, layouts_of, needed_branches
from unimm.generation.cache_policy import CachePolicy
from unimm.generation.cached_rows import CachedRows
from unimm.generation.eviction import Evictor
from unimm.generation.picture_context import context_steps, picture_lengths
from unimm.model import UniMM
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import Chain, Watch


class _Drawn(NamedTuple):
    """A picture that later positions cannot read yet."""

    codes: Tensor  # (h, w)
    start: int  # position of <boi>
    mark: int  # length of the rows that drew, behind <boi>
    branches: tuple[int, ...]  # that drew


class Engine:
    """A batch of documents being written; each may be in a phase of its own.

    Args:
        model: in evaluation mode.
        documents: what stands already: tokenised text and pictures, maybe an empty text.
        generators: one a document, on the CPU; all of its randomness.
        capacity: positions that a document may come to hold.
        is_guided: whether any picture will be drawn with guidance away from no text.
        is_image_guided: likewise away from no earlier pictures.
        objective: how pictures are drawn; by default the model's first.
        policy: what leaves the cache of long documents; by default nothing does.
        on_step: called after every step of the trunk with the positions it ran for one document.
    """

    def __init__(
        self,
        model: UniMM,
        documents: Sequence[Document],
        *,
        generators: Sequence[torch.Generator],
        capacity: int,
        is_guided: bool,
        is_image_guided: bool = False,
        objective: str | None = None,
        policy: CachePolicy | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.special = model, model.special
        self.objective_config = model.config.find_objective(objective)
        self.generators = list(generators)
        self.branches = branches_of(is_guided=is_guided, is_image_guided=is_image_guided)
        self.rows = CachedRows(
            model,
            num_documents=len(documents),
            num_branches=len(self.branches),
            capacity=capacity,
            on_step=on_step,
        )
        self.cache, self.device = self.rows.cache, self.rows.device
        self._evictor: Evictor | None = None
        if policy:
            num_codes = picture_lengths(model, objective)[0] - 2  # <boi> and <eoi>
            rope_base = model.config.backbone.rope_base
            self._evictor = Evictor(
                policy, self.cache, model.special, num_codes=num_codes, rope_base=rope_base
            )
        self._drawn: dict[int, _Drawn] = {}  # document -> its picture, until end_picture
        # Where the next position of each document lies, and its text that no branch has read yet.
        self.cursors = [0] * len(documents)
        self.unread: list[list[int]] = [[] for _ in documents]
        # Text that a document itself reads when its last state is asked for, or with <boi>.
        self.waiting: list[list[int]] = [[] for _ in documents]
        self._last = self._begin(documents)  # (B, D)

    def lengths(self) -> list[int]:
        """Positions that each document holds."""
        lengths = self.cache.lengths[: self.rows.num_documents]
        return [held + len(ids) for held, ids in zip(lengths, self.waiting, strict=True)]

    @property
    def last(self) -> Tensor:
        """Hidden state ``(B, D)`` of each document's last position: it predicts what comes next."""
        if any(self.waiting):
            starts = [end - len(x) for end, x in zip(self.cursors, self.waiting, strict=True)]
            rows = self.rows.of([0])
            self._last = self.rows.append_ids(rows, self.waiting, starts, self._last)
            self.waiting = [[] for _ in self.waiting]
        return self._last

    def text_logits(self) -> Tensor:
        """Logits of the next text token, ``(B, V)`` float32."""
        return self.model.text_head(self.last).float()

    def add_text(self, ids: Sequence[Sequence[int]]) -> None:
        """Append text to each document; an empty list leaves it as it is."""
        for document, new in enumerate(ids):
            self.cursors[document] += len(new)
            self.waiting[document] += new
            if len(self.branches) > 1:
                self.unread[document] += new

    def draw(
        self,
        sampling: SamplingConfig,
        documents: Sequence[int] | None = None,
        *,
        watch: Watch | None = None,
    ) -> ImageTokens:
        """Begin and draw one picture in each of these documents, by default in all.

        Returns:
            The pictures, stacked, on the CPU.
        """
        documents = range(self.rows.num_documents) if documents is None else documents
        branches = needed_branches(self.branches, sampling)
        rows = self.rows.of(branches, documents)
        starts = [self.cursors[d] for d in documents]
        last = self._begin_picture(branches, documents)  # (G B, D)
        marks = self.cache.mark(rows)
        tokens = self._run_blocks(last, rows, documents, len(branches), sampling, watch)
        assert tokens.codes is not None
        for i, document in enumerate(documents):
            self._drawn[document] = _Drawn(tokens.codes[i], starts[i], marks[i], branches)
        return tokens

    def end_picture(self) -> None:
        """Make the drawn pictures readable and append ``<eoi>``, after which text can follow.

        A document that ends in its picture never needs this.
        """
        assert self._drawn, "no picture was drawn"
        by_branches: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for document, drawn in self._drawn.items():
            by_branches[drawn.branches].append(document)
        for branches, documents in by_branches.items():
            self._read_pictures(branches, documents)
        documents = sorted(self._drawn)
        rows = self.rows.of(documents=documents)
        starts = [self.cursors[d] for d in documents] * len(self.branches)
        last = self.rows.append_ids(rows, [[self.special.eoi]] * len(rows), starts)
        at = torch.tensor(documents, device=self.device)
        self._last = self.last.index_copy(0, at, last[: len(documents)])
        for document in documents:
            self.cursors[document] += 1
            if self._evictor:
                self.cursors[document] += self._evictor.end_page(
                    document,
                    self.rows.of(documents=[document]),
                    start=self._drawn[document].start,
                    end=self.cursors[document],
                )
        self._drawn = {}

    def keep(self, documents: Sequence[int]) -> None:
        """Go on with these documents only, renumbered in this order."""
        if list(documents) == list(range(self.rows.num_documents)):
            return
        self.rows.keep(documents)
        self._last = self._last[list(documents)]
        self.generators = [self.generators[d] for d in documents]
        self.cursors = [self.cursors[d] for d in documents]
        self.unread = [self.unread[d] for d in documents]
        self.waiting = [self.waiting[d] for d in documents]
        if self._evictor:
            self._evictor.keep(documents)
        drawn = self._drawn
        self._drawn = {new: drawn[d] for new, d in enumerate(documents) if d in drawn}

    def close(self) -> None:
        """Leave the cache and what was recorded to the model's next engine; this one is done."""
        self.rows.close()

    def _begin(self, documents: Sequence[Document]) -> Tensor:
        """Read what stands already, less what the policy hides; nothing but ``<bos>`` can wait."""
        if self._evictor is None and all(map(_is_empty, documents)):
            self.cursors = [1] * len(documents)
            self.waiting, self.unread = ([[self.special.bos] for _ in documents] for _ in range(2))
            weight = self.model.text_embedding.weight
            return weight.new_empty(len(documents), weight.shape[1])  # read before it is looked at
        layouts = layouts_of(self.branches, documents, self.objective_config, self.special)
        ends = [int(layout.position_ids.max()) + 1 for layout in layouts]
        self.cursors = ends[: len(documents)]
        if self._evictor is None:
            return self.rows.prefill(layouts)
        last = self.rows.prefill(layouts, visible=self._evictor.begin(layouts, len(documents)))
        for document in range(len(documents)):
            own = self.rows.of(documents=[document])
            self.cursors[document] += self._evictor.evict(document, own)
        return last

    def _begin_picture(
        self, branches: Sequence[int], documents: Sequence[int] | None = None
    ) -> Tensor:
        """Append ``<boi>`` after the text that a branch, or the document, has not read yet."""
        documents = range(self.rows.num_documents) if documents is None else documents
        ids: list[list[int]] = []
        starts: list[int] = []
        for branch in branches:
            for document in documents:
                missed = self.waiting[document]
                if branch > 0:
                    missed = self.branches[branch].reads(self.unread[document], self.special)
                ids.append([*missed, self.special.boi])
                starts.append(self.cursors[document] - len(missed))
        if 0 in branches:
            for document in documents:
                self.waiting[document] = []
        return self.rows.append_ids(self.rows.of(branches, documents), ids, starts)

    def _run_blocks(
        self,
        last: Tensor,
        rows: list[int],
        documents: Sequence[int],
        num_branches: int,
        sampling: SamplingConfig,
        watch: Watch | None,
    ) -> ImageTokens:
        """Drive the objective's sampler."""
        objective = self.model.objective(self.objective_config.name)
        origins = torch.tensor([self.cursors[d] + 1 for d in documents])
        offset = origins.to(self.device, non_blocking=True)[:, None, None]  # (B, 1, 1)
        steps = objective.sample(
            last,
            generators=[self.generators[d] for d in documents],
            sampling=sampling,
            embed_codes=self.model.code_embedding,  # what is drawn is no null picture
            watch=watch,
        )
        try:
            asked = next(steps)
            while True:
                positions = (asked.positions + offset).repeat(num_branches, 1, 1)
                if isinstance(asked, Chain):
                    hidden = self.rows.run_chain(rows, asked, positions)
                else:
                    x = asked.x.repeat(num_branches, 1, 1)
                    hidden = self.rows.run(rows, x, positions, is_causal=asked.is_causal)
                    self.cache.advance(rows, [asked.keep] * len(rows))
                asked = steps.send(hidden)
        except StopIteration as stop:
            self.rows.settle()
            return cast(ImageTokens, stop.value).map(Tensor.cpu)

    def _read_pictures(self, branches: tuple[int, ...], documents: Sequence[int]) -> None:
        """Leave in all branches what later positions read of pictures that these branches drew."""
        missing = [b for b in range(len(self.branches)) if b not in branches]
        is_own = self.objective_config.is_own_context
        redone = [b for b in branches if not is_own or self.branches[b] is Branch.PICTURES]
        self.cache.release(self.rows.of(branches, documents))
        marks = [self._drawn[d].mark for d in documents]
        self.cache.rewind(self.rows.of(redone, documents), marks * len(redone))
        if missing:
            self._begin_picture(missing, documents)
        if redone or missing:
            self._append_context(documents, sorted([*redone, *missing]))
        for document in documents:
            context = self._context(self._drawn[document].codes)
            self.cursors[document] += 2 + int(context.position_ids.max())  # and <boi>
            self.unread[document] = []

    def _context(self, codes: Tensor) -> Segment:
        """A clean picture as later positions read it."""
        return self.objective_config.context(codes.numpy(), self.special)

    def _stack(self, arrays: Sequence[Ids]) -> Tensor:
        return torch.tensor(np.stack(arrays), device=self.device)

    def _append_context(self, documents: Sequence[int], branches: Sequence[int]) -> None:
        """Append clean pictures as later positions of these branches read them."""
        rows = self.rows.of(branches, documents)
        pictures = [
            self.branches[b].shows(self._drawn[d].codes) for b in branches for d in documents
        ]
        segments = [self._context(codes) for codes in pictures]
        origins = [self.cursors[d] + 1 for d in documents] * len(branches)
        positions = self._stack(
            [s.position_ids + origin for s, origin in zip(segments, origins, strict=True)]
        )  # (R, n, 3)
        x = self.model.embed_inputs(
            self._stack([s.input_ids for s in segments]),
            self._stack([s.code_ids for s in segments]),
        )  # (R, n, D)
        for start, end, is_causal in context_steps(segments[0].block_ids):
            self.rows.run(rows, x[:, start:end], positions[:, start:end], is_causal=is_causal)
            self.cache.advance(rows, [end - start] * len(rows))


def _is_empty(document: Document) -> bool:
    return all(part.text_ids is not None and len(part.text_ids) == 0 for part in document.parts)
