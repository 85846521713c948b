"""Batches as a pure function of their number: resume needs no other state.

An epoch's documents are permuted and packed into rows by a function of (seed, epoch); the rows of
all epochs form one stream, and batch ``n`` of rank ``r`` is a fixed stretch of it. Neither worker
processes nor how a step is cut into micro-batches and ranks change what a step trains on.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from unimm.data.corpus import Corpus, PictureSizes
from unimm.data.mixture import epoch_order
from unimm.document import (
    Batch,
    ImageLayout,
    Layout,
    SpecialIds,
    layout_document,
    mix_seed,
    pack,
    sample_dropped,
)

_WINDOW = 24  # rows that are open at once while packing
_MAX_DOCUMENTS = 64  # in one row


@dataclass(frozen=True, kw_only=True)
class Packing:
    """How a model's documents become rows.

    Attributes:
        row_length: positions of a row.
        special: ids of the special tokens.
        objectives: head -> how it lays pictures out.
        weights: head -> share of the documents that it draws.
        drop_rate: how often texts and pictures are hidden, for guidance.
        seed: of the run.
    """

    row_length: int
    special: SpecialIds
    objectives: Mapping[str, ImageLayout]
    weights: Mapping[str, float]
    drop_rate: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """Documents of one row: numbers, and the head that draws each one's pictures."""

    epoch: int
    documents: tuple[int, ...]
    heads: tuple[str, ...]


class RowStream:
    """The rows of all epochs, one after another.

    Args:
        corpus: the documents.
        packing: how they become rows.
        max_documents: of a row; by default as many as could fit.

    Attributes:
        max_documents: no row holds more.

    Raises:
        ValueError: a document is longer than a row.
    """

    def __init__(
        self, corpus: Corpus, packing: Packing, *, max_documents: int | None = None
    ) -> None:
        self.corpus, self.packing = corpus, packing
        self._heads = tuple(packing.objectives)
        self._lengths = np.stack(
            [
                corpus.lengths(
                    PictureSizes.of(objective, corpus.blank(objective.schedule), packing.special)
                )
                for objective in packing.objectives.values()
            ]
        )  # (objectives, documents)
        longest = int(self._lengths.max())
        if longest > packing.row_length:
            number = int(self._lengths.max(axis=0).argmax())
            raise ValueError(
                f"document {number} has {longest} positions, longer than a row of "
                f"{packing.row_length}: raise data.row_length, or encode shorter documents"
            )
        fitting = packing.row_length // int(self._lengths.min())
        self.max_documents = max_documents or min(_MAX_DOCUMENTS, fitting)
        self._starts = [0]  # number of each epoch's first row
        self._packed: dict[int, list[Row]] = {}  # the latest epochs

    def __getitem__(self, number: int) -> Row:
        """The row of that number, from 0, without end."""
        while number >= self._starts[-1]:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        epoch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return self._epoch(epoch)[number - self._starts[epoch]]

    def rows_of(self, epoch: int) -> list[Row]:
        """All rows of an epoch: every document once."""
        return list(self._epoch(epoch))

    def fill_rate(self, epoch: int = 0) -> float:
        """Share of an epoch's positions that are not padding."""
        rows = self._epoch(epoch)
        order = {head: k for k, head in enumerate(self._heads)}
        used = sum(
            int(self._lengths[order[head], number])
            for row in rows
            for number, head in zip(row.documents, row.heads, strict=True)
        )
        return used / (len(rows) * self.packing.row_length)

    def _epoch(self, epoch: int) -> list[Row]:
        if epoch not in self._packed:
            while len(self._packed) > 1:  # a batch touches two epochs at most
                self._packed.pop(next(iter(self._packed)))
            self._packed[epoch] = self._pack_epoch(epoch)
        return self._packed[epoch]

    def _pack_epoch(self, epoch: int) -> list[Row]:
        order, rng = epoch_order(
            self.corpus.sources, self.corpus.weights, seed=self.packing.seed, epoch=epoch
        )
        shares = np.array([self.packing.weights[head] for head in self._heads], dtype=np.float64)
        edges = (shares / shares.sum()).cumsum()[:-1]
        documents = np.arange(self.corpus.num_documents)
        chosen = np.searchsorted(edges, rng.random(len(documents)), side="right")
        lengths = self._lengths[chosen, documents]
        packed = first_fit(
            lengths[order], limit=self.packing.row_length, max_items=self.max_documents
        )
        heads = self._heads
        return [
            Row(
                epoch,
                documents=tuple(int(order[i]) for i in row),
                heads=tuple(heads[chosen[order[i]]] for i in row),
            )
            for row in packed
        ]


def first_fit(
    lengths: NDArray[np.int64], *, limit: int, max_items: int, window: int = _WINDOW
) -> list[list[int]]:
    """Pack items in order, each into the first of the open rows that it fits.

    When ``window`` rows are open, the fullest is closed: an item stays near its place in the order.

    Returns:
        Item numbers of each row; every item once.
    """
    closed: list[list[int]] = []
    rows: list[list[int]] = []
    free: list[int] = []
    for item, length in enumerate(lengths.tolist()):
        for place, room in enumerate(free):
            if length <= room and len(rows[place]) < max_items:
                break
        else:
            if len(rows) == window:
                fullest = free.index(min(free))
                closed.append(rows.pop(fullest))
                free.pop(fullest)
            rows.append([])
            free.append(limit)
            place = len(rows) - 1
        rows[place].append(item)
        free[place] -= length
    return closed + rows


class TrainBatches(Dataset[Batch]):
    """Micro-batches of one rank by number.

    Args:
        stream: the rows.
        micro_rows: rows of a micro-batch.
        rank: of this process.
        world_size: processes.
    """

    def __init__(
        self, stream: RowStream, *, micro_rows: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.stream, self.micro_rows = stream, micro_rows
        self.rank, self.world_size = rank, world_size

    def __getitem__(self, number: int) -> Batch:
        """Lay out and pack micro-batch ``number`` (step times accumulation plus its place)."""
        first = (number * self.world_size + self.rank) * self.micro_rows
        rows = [self.stream[first + i] for i in range(self.micro_rows)]
        return self.pack([[*self._layouts(row)] for row in rows])

    def pack(self, rows: Sequence[Sequence[Layout]]) -> Batch:
        """Pack laid-out documents as the run's batches are."""
        packing = self.stream.packing
        return pack(
            rows,
            row_length=packing.row_length,
            heads=tuple(packing.objectives),
            pad_id=packing.special.pad,
            max_documents=self.stream.max_documents,
            seed=packing.seed,
        )

    def _layouts(self, row: Row) -> Iterator[Layout]:
        packing, corpus = self.stream.packing, self.stream.corpus
        for number, head in zip(row.documents, row.heads, strict=True):
            # The visit, not the document, seeds: each epoch hides and masks anew.
            visit = row.epoch * corpus.num_documents + number
            objective = packing.objectives[head]
            document = corpus.document(number, visit=visit, schedule=objective.schedule)
            dropped = None
            if packing.drop_rate > 0:
                generator = torch.Generator().manual_seed(mix_seed(packing.seed, visit, -1))
                dropped = sample_dropped(document, generator, packing.drop_rate)
            yield layout_document(document, objective, packing.special, dropped=dropped)


class _From(Sampler[int]):
    """Batch numbers from a start on, without end."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return count(self.start)


def iterate_batches(
    batches: Dataset[Batch], *, start: int, num_workers: int = 0, is_pinned: bool = False
) -> Iterator[Batch]:
    """Give batches ``start``, ``start + 1``, ... without end, made by worker processes.

    Args:
        batches: by number.
        start: first number.
        num_workers: processes; 0 makes batches in this one.
        is_pinned: pin their memory for asynchronous copies to a GPU.
    """
    extra: dict[str, Any] = {"prefetch_factor": 4} if num_workers else {}
    loader = DataLoader(
        batches,
        sampler=_From(start),
        batch_size=None,
        num_workers=num_workers,
        pin_memory=is_pinned,
        worker_init_fn=_leave_group,
        **extra,
    )
    return iter(loader)


def _leave_group(_worker: int) -> None:
    """Take a worker out of the run's process group: signals to the group are for the run alone.

    ``timeout`` and many job managers signal the whole group. A worker that died first would break
    the run before it could save; the run itself still ends its workers.
    """
    os.setpgid(0, 0)


def evaluation_batches(
    corpus: Corpus,
    packing: Packing,
    *,
    micro_rows: int,
    max_documents: int | None = None,
    marks: Sequence[Sequence[bool]] | None = None,
) -> list[tuple[Batch, Tensor]]:
    """Pack all documents once, in order and with nothing hidden.

    Args:
        corpus: held-out documents.
        packing: the run's; documents are laid out by its first objective in turn with the others.
        micro_rows: rows of a batch; the last batch is filled up with empty rows.
        max_documents: of a row; that of the training stream gives batches of the same shape.
        marks: of each document, flags of its text labels (``copied_name_mask``).

    Returns:
        Batches, each with a bool mask ``(N,)`` over its text labels.
    """
    stream = RowStream(corpus, packing, max_documents=max_documents)
    train = TrainBatches(stream, micro_rows=micro_rows)
    heads = tuple(packing.objectives)
    layouts: list[Layout] = []
    for number in range(corpus.num_documents):
        objective = packing.objectives[heads[number % len(heads)]]
        document = corpus.document(number, schedule=objective.schedule)
        layouts.append(layout_document(document, objective, packing.special))
    lengths = np.array([len(layout) for layout in layouts], dtype=np.int64)
    rows = first_fit(lengths, limit=packing.row_length, max_items=stream.max_documents)
    rows += [[] for _ in range(-len(rows) % micro_rows)]
    batches: list[tuple[Batch, Tensor]] = []
    for at in range(0, len(rows), micro_rows):
        group = rows[at : at + micro_rows]
        flags: list[bool] = []
        for item in (item for row in group for item in row):
            num_labels = len(layouts[item].head_index["text"])
            own = marks[item] if marks is not None else [False] * num_labels
            assert len(own) == num_labels, (len(own), num_labels)
            flags += own
        batch = train.pack([[layouts[item] for item in row] for row in group])
        batches.append((batch, torch.tensor(flags, dtype=torch.bool)))
    return batches
