"""Runs the trunk for a batch of documents: cache, guidance branches, text, pictures.

Legend: ``B`` documents, ``G`` guidance branches (1 or 2), ``R`` rows of a step, ``n`` positions of
a step, ``D`` width. Rows of the cache: the documents, then, when guided, the same documents with
their text replaced by ``<null>``: equally long, at the same positions.

Documents go in step: all write text, then all draw. The unguided branch needs no forward while
text is written; it reads its nulls just before the next picture.
"""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch
from torch import Tensor

from unimm.document import (
    Document,
    Dropped,
    Ids,
    ImageTokens,
    Layout,
    Segment,
    attention_rule,
    layout_document,
    pack,
)
from unimm.generation.graphs import StepGraphs
from unimm.model import UniMM
from unimm.nn.attention import Visibility
from unimm.nn.kv_cache import KVCache
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import Block


class Engine:
    """A batch of documents being written.

    Args:
        model: in evaluation mode.
        documents: what stands already: tokenised text and pictures, maybe an empty text.
        generators: one a document, on the CPU; all of its randomness.
        capacity: positions that a document may come to hold.
        is_guided: whether any picture will be drawn with guidance.
        objective: how pictures are drawn; by default the model's first.
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
        objective: str | None = None,
        on_step: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self.special = model, model.special
        self.objective_config = model.config.find_objective(objective)
        self.generators = list(generators)
        self.num_documents = len(documents)
        self.num_branches = 2 if is_guided else 1
        self._on_step = on_step
        weight = model.text_embedding.weight
        self.device = weight.device
        config = model.config.backbone
        self.cache = KVCache(
            depth=config.depth,
            num_rows=self.num_documents * self.num_branches,
            num_kv_heads=config.num_kv_heads,
            max_length=capacity,
            head_dim=config.head_width,
            dtype=weight.dtype,
            device=self.device,
        )
        self._graphs = self._step_graphs()
        self._finish: Callable[[], None] | None = None  # what a drawn picture still lacks
        # Where the next position of each document lies, and how many of its last text positions
        # the unconditional rows have not read yet.
        self.cursors = [0] * self.num_documents
        self.lags = [0] * self.num_documents
        self.last = self._prefill(documents)  # (B, D), predicts what comes next

    def lengths(self) -> list[int]:
        """Positions that each document holds."""
        return self.cache.lengths[: self.num_documents]

    def text_logits(self) -> Tensor:
        """Logits of the next text token, ``(B, V)`` float32."""
        return self.model.text_head(self.last).float()

    def add_text(self, ids: Sequence[Sequence[int]]) -> None:
        """Append text to each document; an empty list leaves it as it is."""
        self.last = self._append_ids(self._rows(1), ids, self.cursors, self.last)
        for document, new in enumerate(ids):
            self.cursors[document] += len(new)
            self.lags[document] += len(new)

    def draw(self, sampling: SamplingConfig) -> ImageTokens:
        """Begin and draw one picture in every document.

        Returns:
            The pictures, stacked, on the CPU.
        """
        branches = 2 if sampling.guidance_scale != 1 else 1
        assert branches <= self.num_branches, "guidance was not announced"
        rows = self._rows(branches)
        last = self._begin_picture(branches)  # (G B, D)
        origins = [cursor + 1 for cursor in self.cursors]
        marks = self.cache.mark(rows)
        tokens = self._run_blocks(last, rows, origins, branches, sampling)
        assert tokens.codes is not None
        self._finish = partial(self._read_picture, tokens.codes, origins, marks, branches)
        return tokens

    def end_picture(self) -> None:
        """Make the drawn picture readable and append ``<eoi>``, after which text can follow."""
        assert self._finish is not None, "no picture was drawn"
        self._finish()
        self._finish = None
        ids = [[self.special.eoi]] * (self.num_documents * self.num_branches)
        last = self._append_ids(
            self._rows(self.num_branches), ids, self.cursors * self.num_branches
        )
        self.last = last[: self.num_documents]
        self.cursors = [cursor + 1 for cursor in self.cursors]

    def _read_picture(
        self, codes: Tensor, origins: list[int], marks: list[int], branches: int
    ) -> None:
        """Leave what later positions read of drawn pictures ``(B, h, w)`` in all branches.

        A document that ends in its picture never needs this.
        """
        if not self.objective_config.is_own_context:
            self.cache.rewind(self._rows(branches), marks)
            self._append_context(codes, origins, 0, branches)
        if branches < self.num_branches:
            self._begin_picture(self.num_branches, first=1)
            self._append_context(codes, origins, 1, self.num_branches)
        extent = int(self._context(codes[0]).position_ids.max()) + 1
        self.cursors = [origin + extent for origin in origins]
        self.lags = [0] * self.num_documents

    def keep(self, documents: Sequence[int]) -> None:
        """Go on with these documents only, renumbered in this order."""
        if list(documents) == list(range(self.num_documents)):
            return
        branches = range(self.num_branches)
        self.cache.select([d + b * self.num_documents for b in branches for d in documents])
        self._graphs = self._step_graphs()
        self.last = self.last[list(documents)]
        self.generators = [self.generators[d] for d in documents]
        self.cursors = [self.cursors[d] for d in documents]
        self.lags = [self.lags[d] for d in documents]
        self.num_documents = len(documents)

    def _rows(self, until: int, first: int = 0) -> list[int]:
        """Rows of the branches ``first`` to ``until``."""
        return list(range(first * self.num_documents, until * self.num_documents))

    def _step_graphs(self) -> StepGraphs | None:
        """The CPU has nothing to record with."""
        is_cuda = self.device.type == "cuda"
        return StepGraphs(self.model.backbone, self.cache) if is_cuda else None

    def _run(self, rows: list[int], x: Tensor, positions: Tensor, *, is_causal: bool) -> Tensor:
        """Run the trunk on new positions; ``advance`` says afterwards how many stay."""
        if self._graphs:
            hidden = self._graphs.run(rows, x, positions, is_causal=is_causal)
        else:
            view = self.cache.view(rows, x.shape[1], is_causal=is_causal)
            hidden = self.model.backbone(x, positions, cache=view)
        if self._on_step:
            self._on_step(x.shape[1])
        return hidden

    def _prefill(self, documents: Sequence[Document]) -> Tensor:
        """Run the training forward over what stands already, filling the cache."""
        layouts: list[Layout] = []
        for branch in range(self.num_branches):
            for document in documents:
                texts = [i for i, part in enumerate(document.parts) if part.is_text]
                dropped = Dropped(parts=frozenset(texts if branch else ()))
                layouts.append(
                    layout_document(document, self.objective_config, self.special, dropped=dropped)
                )
        lengths = [len(layout) for layout in layouts]
        batch = pack(
            [[layout] for layout in layouts],
            row_length=max(lengths),
            heads=self.model.config.heads,
            pad_id=self.special.pad,
        )
        ends = [int(layout.position_ids.max()) + 1 for layout in layouts]
        self.cursors = ends[: self.num_documents]
        batch = batch.to(self.device)
        rows = self._rows(self.num_branches)
        view = self.cache.view(rows, max(lengths), is_causal=True)
        hidden = self.model.backbone(
            self.model.embed_inputs(batch.input_ids, batch.code_ids),
            batch.position_ids,
            Visibility(dense=attention_rule(batch)[:, None]),
            view,
        )
        self.cache.advance(rows, lengths)
        if self._on_step:
            self._on_step(max(lengths))
        at = torch.tensor(lengths[: self.num_documents], device=self.device) - 1
        return hidden[torch.arange(self.num_documents, device=self.device), at]

    def _append_ids(
        self,
        rows: list[int],
        ids: Sequence[Sequence[int]],
        starts: Sequence[int],
        last: Tensor | None = None,
    ) -> Tensor:
        """Append text ids of any lengths to rows: causal, padded to the right.

        Padding is written behind what a row keeps, where nothing sees it.

        Returns:
            Hidden state of each row's last new position ``(R, D)``, or ``last`` where none is new.
        """
        counts = [len(new) for new in ids]
        longest = max(counts)
        if longest == 0:
            assert last is not None
            return last
        padded = [[*new, *[self.special.pad] * (longest - len(new))] for new in ids]
        input_ids = torch.tensor(padded).to(self.device, non_blocking=True)  # (R, n)
        steps = [[start + i for i in range(longest)] for start in starts]
        positions = torch.tensor(steps).to(self.device, non_blocking=True)
        hidden = self._run(
            rows,
            self.model.text_embedding(input_ids),
            positions[..., None].expand(-1, -1, 3),
            is_causal=True,
        )
        self.cache.advance(rows, counts)
        if longest == 1 and min(counts) == 1:
            return hidden[:, 0]
        at = torch.tensor(counts).to(self.device, non_blocking=True)
        newest = hidden[torch.arange(len(rows), device=self.device), (at - 1).clamp(min=0)]
        return newest if last is None else torch.where((at > 0)[:, None], newest, last)

    def _begin_picture(self, until: int, first: int = 0) -> Tensor:
        """Append ``<boi>``, in the unconditional rows after the nulls they still lack."""
        ids: list[list[int]] = []
        starts: list[int] = []
        for branch in range(first, until):
            for cursor, lag in zip(self.cursors, self.lags, strict=True):
                missing = lag if branch else 0
                ids.append([self.special.null] * missing + [self.special.boi])
                starts.append(cursor - missing)
        return self._append_ids(self._rows(until, first), ids, starts)

    def _run_blocks(
        self,
        last: Tensor,
        rows: list[int],
        origins: list[int],
        branches: int,
        sampling: SamplingConfig,
    ) -> ImageTokens:
        """Drive the objective's sampler block by block."""
        objective = self.model.objective(self.objective_config.name)
        offset = torch.tensor(origins).to(self.device)[:, None, None]  # (B, 1, 1)
        steps = objective.sample(
            last,
            generators=self.generators,
            sampling=sampling,
            embed_codes=self.model.embed_codes,
        )
        try:
            block: Block = next(steps)
            while True:
                hidden = self._run(
                    rows,
                    block.x.repeat(branches, 1, 1),
                    (block.positions + offset).repeat(branches, 1, 1),
                    is_causal=block.is_causal,
                )
                self.cache.advance(rows, [block.keep] * len(rows))
                block = steps.send(hidden)
        except StopIteration as stop:
            return cast(ImageTokens, stop.value).map(Tensor.cpu)

    def _context(self, codes: Tensor) -> Segment:
        """A clean picture as later positions read it."""
        return self.objective_config.context(codes.numpy(), self.special)

    def _stack(self, arrays: Sequence[Ids]) -> Tensor:
        return torch.tensor(np.stack(arrays), device=self.device)

    def _append_context(self, codes: Tensor, origins: list[int], first: int, until: int) -> None:
        """Append clean pictures ``(B, h, w)`` as later positions read them."""
        segments = [self._context(picture) for picture in codes]
        placed = [s.position_ids + origin for s, origin in zip(segments, origins, strict=True)]
        positions = self._stack(placed)  # (B, n, 3)
        x = self.model.embed_inputs(
            self._stack([s.input_ids for s in segments]),
            self._stack([s.code_ids for s in segments]),
        )  # (B, n, D)
        blocks = segments[0].block_ids
        length, rows = blocks.shape[0], self._rows(until, first)
        is_causal = int(blocks[-1]) == length - 1  # every block is one position
        starts = [0, *(int(i) + 1 for i in np.flatnonzero(np.diff(blocks)))]
        bounds = [0, length] if is_causal else [*starts, length]
        for start, end in itertools.pairwise(bounds):
            self._run(
                rows,
                x[:, start:end].repeat(until - first, 1, 1),
                positions[:, start:end].repeat(until - first, 1, 1),
                is_causal=is_causal,
            )
            self.cache.advance(rows, [end - start] * len(rows))


def picture_lengths(model: UniMM, objective: str | None = None) -> tuple[int, int]:
    """Positions that a picture takes in the cache, ``<boi>`` and ``<eoi>`` included.

    Returns:
        How many stay, and how many there are at most while it is drawn.
    """
    config = model.config.find_objective(objective)
    zeros = model.objective(config.name).zeros(torch.device("cpu"))[0]
    side = model.spec.grid_size
    codes = torch.zeros(side, side, dtype=torch.int64) if zeros.codes is None else zeros.codes
    kept = 2 + config.context(codes.numpy(), model.special).input_ids.shape[0]
    return kept, max(kept, 1 + config.layout(zeros, model.special).input_ids.shape[0])
