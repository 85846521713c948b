"""A folder of shards in memory: texts tokenised once, pictures as memory-mapped tensors.

Documents are flat arrays rather than objects, so that forked loader workers share the pages.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unimm.data.shards import ShardFolder
from unimm.document import Document, ImageLayout, ImageTokens, Part, SpecialIds

TextEncoder = Callable[[Sequence[str]], list[list[int]]]
_TEXT, _GIVEN, _DRAWN = -1, 0, 1


class Corpus:
    """Documents by number, ready to be laid out.

    Args:
        folder: encoded shards.
        encode_texts: the text tokenizer's ``encode_batch``.
        limit: read this many documents at most.

    Attributes:
        num_documents: documents are numbered 0 to this.
        grid_size: ``(h, w)`` of every picture.
        truths: what is known of each document.
        sources: number of each document's source in the mixture, ``(num_documents,)``, rising.
        weights: of the sources.
        fingerprint: of the folder.
    """

    def __init__(
        self, folder: ShardFolder, *, encode_texts: TextEncoder, limit: int | None = None
    ) -> None:
        self.grid_size = folder.manifest.grid_size
        self.truths: list[Any] = []
        self._folder = folder
        texts: list[str] = []
        parts: list[tuple[int, int]] = []  # (_TEXT, number of the text) or (how, row of the codes)
        bounds, shards, is_open = [0], [], []
        for shard, document in folder.documents(limit):
            for part in document["parts"]:
                if "text" in part:
                    parts.append((_TEXT, len(texts)))
                    texts.append(part["text"])
                else:
                    parts.append((_DRAWN if part["is_drawn"] else _GIVEN, part["image"]))
            bounds.append(len(parts))
            shards.append(shard)
            is_open.append(document["is_open"])
            self.truths.append(document["truth"])
        self.num_documents, self.num_images = len(shards), folder.num_images
        ids = encode_texts(texts)
        counts = np.fromiter(map(len, ids), dtype=np.int64, count=len(ids))
        self._text_bounds = np.concatenate([[0], counts.cumsum()])
        flat = (token for text in ids for token in text)
        self._text_ids = np.fromiter(flat, dtype=np.int32, count=int(counts.sum()))
        self._parts = np.array(parts, dtype=np.int64).reshape(-1, 2)
        self._bounds = np.array(bounds, dtype=np.int64)
        self._shards = np.array(shards, dtype=np.int64)
        self._is_open = np.array(is_open, dtype=bool)
        self.sources = np.array(folder.sources, dtype=np.int64)[self._shards]
        self.weights, self.fingerprint = folder.weights, folder.fingerprint

    def document(
        self, number: int, *, visit: int | None = None, schedule: str | None = None
    ) -> Document:
        """Make a document.

        Args:
            number: of the document.
            visit: becomes its index, which seeds its randomness; ``number`` by default.
            schedule: code layout of its pictures; by default the first that the shards hold.

        Raises:
            ValueError: if the shards do not hold that schedule.
        """
        schedule = self._check_schedule(schedule)
        parts: list[Part] = []
        for how, at in self._parts[self._bounds[number] : self._bounds[number + 1]].tolist():
            if how == _TEXT:
                ids = self._text_ids[self._text_bounds[at] : self._text_bounds[at + 1]]
                parts.append(Part(text_ids=torch.from_numpy(ids.astype(np.int64))))
            else:
                stacked = self._folder.images[self._shards[number]][schedule]
                tokens = stacked.map(lambda tensor, at=at: _widen(tensor[at]))
                parts.append(Part(tokens=tokens, is_drawn=how == _DRAWN))
        return Document(
            parts=tuple(parts),
            is_open=bool(self._is_open[number]),
            index=number if visit is None else visit,
        )

    def blank(self, schedule: str | None = None) -> ImageTokens:
        """A picture of code 0 in a schedule, to measure with; arguments as ``document``."""
        return self._folder.manifest.blank(self._check_schedule(schedule), 1)[0]

    def _check_schedule(self, schedule: str | None) -> str:
        held = self._folder.manifest.schedules
        if schedule is not None and schedule not in held:
            raise ValueError(
                f"the shards in {self._folder.folder} hold the schedules {', '.join(held)}, but an "
                f"objective draws by {schedule}: encode the documents again with an image "
                "tokenizer that has it (tokenizer.schedules)"
            )
        return held[0] if schedule is None else schedule

    def lengths(self, sizes: "PictureSizes") -> NDArray[np.int64]:
        """Count the positions of every document without laying it out, ``(num_documents,)``.

        Exact when nothing is hidden; a hidden picture can only make a document shorter.
        """
        how = self._parts[:, 0]
        sums = np.concatenate([[0], self._part_lengths(sizes).cumsum()])
        lengths = 1 + sums[self._bounds[1:]] - sums[self._bounds[:-1]]  # <bos>
        last = how[self._bounds[1:] - 1]
        ends_open = self._is_open & (last != _TEXT)
        saved = np.where(last == _DRAWN, sizes.drawn - sizes.last + 1, 1)  # no <eoi>, no copy
        return lengths - np.where(ends_open, saved, 0)

    def cut(self, row_length: int, sizes: Sequence["PictureSizes"]) -> "Cut":
        """Cut documents that are longer than a row into documents of whole pages.

        A page is one or more texts and the pictures after them, so documents are cut before a text
        that follows a picture. As many pages as fit stay together. All pieces but the last are
        open: their story goes on, so no ``<eos>`` is learned at the cut. A page that is longer
        than a row by itself is left out, and what stands before and after it is kept apart.

        Args:
            row_length: positions of a row.
            sizes: of each objective that may draw the documents.

        Returns:
            What was done; documents are numbered anew.
        """
        longest = np.stack([self.lengths(size) for size in sizes]).max(axis=0)
        too_long = np.flatnonzero(longest > row_length)
        if not len(too_long):
            return Cut()
        per_part = np.stack([self._part_lengths(size) for size in sizes]).max(axis=0)
        cuts: list[int] = []
        left_out: set[int] = set()  # first parts of the pages
        for number in too_long.tolist():
            start, stop = self._bounds[number : number + 2].tolist()
            used = row_length  # the first page starts a piece
            for page, end in self._pages(start, stop):
                length = int(per_part[page:end].sum())
                if 1 + length > row_length:
                    left_out.add(page)
                    length = row_length
                if used + length > row_length:
                    cuts.append(page)
                    used = 1  # <bos>
                used += length
        self._cut_at(np.union1d(self._bounds, np.array(cuts, dtype=np.int64)), left_out)
        return Cut(documents=len(too_long), pieces=len(cuts) - len(left_out), pages=len(left_out))

    def _pages(self, start: int, stop: int) -> list[tuple[int, int]]:
        """First and last bound of the pages of a document's parts."""
        is_text = self._parts[start:stop, 0] == _TEXT
        begins = np.flatnonzero(is_text[1:] & ~is_text[:-1]) + 1 + start
        edges = [start, *begins.tolist(), stop]
        return list(itertools.pairwise(edges))

    def _cut_at(self, bounds: NDArray[np.int64], left_out: set[int]) -> None:
        """Put new bounds between documents, and leave out pieces by their first part."""
        owner = np.searchsorted(self._bounds, bounds[:-1], side="right") - 1
        is_last = np.append(owner[1:] != owner[:-1], True)
        kept = ~np.isin(bounds[:-1], np.array(sorted(left_out), dtype=np.int64))
        counts = np.diff(bounds)
        self._parts = self._parts[np.repeat(kept, counts)]
        self._bounds = np.concatenate([[0], counts[kept].cumsum()])
        self._is_open = (self._is_open[owner] | ~is_last)[kept]
        self._shards, self.sources = self._shards[owner][kept], self.sources[owner][kept]
        self.truths = [self.truths[number] for number in owner[kept].tolist()]
        self.num_documents = len(self.truths)

    def _part_lengths(self, sizes: "PictureSizes") -> NDArray[np.int64]:
        """Positions of every part, ``<eoi>`` included, ``(parts,)``."""
        how = self._parts[:, 0]
        return np.select(
            [how == _TEXT, how == _DRAWN],
            [self._text_counts(), sizes.drawn + 1],
            default=sizes.given + 1,
        )

    def _text_counts(self) -> NDArray[np.int64]:
        counts = np.diff(self._text_bounds)
        is_text = self._parts[:, 0] == _TEXT
        filled = np.zeros(len(self._parts), dtype=np.int64)
        filled[is_text] = counts[self._parts[is_text, 1]]
        return filled


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What happened to documents that were longer than a row.

    Attributes:
        documents: that were too long.
        pieces: that they became.
        pages: that were left out, each longer than a row by itself.
    """

    documents: int = 0
    pieces: int = 0
    pages: int = 0


def _widen(stored: torch.Tensor) -> torch.Tensor:
    """Codes as int64, latents as float32."""
    return stored.float() if stored.is_floating_point() else stored.to(torch.int64)


@dataclass(frozen=True, kw_only=True)
class PictureSizes:
    """Positions of one picture under one objective, ``<boi>`` included, ``<eoi>`` not.

    Attributes:
        drawn: target and, where later positions need one, context copy.
        last: the target alone, at the end of an open document.
        given: a picture that is only read.
    """

    drawn: int
    last: int
    given: int

    @staticmethod
    def of(objective: ImageLayout, tokens: ImageTokens, special: SpecialIds) -> "PictureSizes":
        """Measure on any one picture ``(h, w)`` of the right size."""
        assert tokens.codes is not None
        target = len(objective.layout(tokens, special).input_ids)
        target += not objective.is_own_context  # ``<boi>`` stands before it
        context = len(objective.context(tokens.codes.numpy(), special).input_ids)
        return PictureSizes(
            drawn=target if objective.is_own_context else target + context,
            last=target,
            given=1 + context,
        )


def copied_name_mask(document: Document, names: Sequence[Sequence[Sequence[int]]]) -> list[bool]:
    """Mark, among the text labels of a document, names that an earlier part already mentions.

    Whether a trunk has learned to bind names shows in the loss of exactly these labels.

    Args:
        document: with ``text_ids``; laid out with nothing hidden.
        names: per character, the ids of each form of its name (with and without a space before).

    Returns:
        One flag a label of the text head, in the order of ``Layout.head_index["text"]``.
    """
    known: set[int] = set()  # names that an earlier part mentions
    flags: list[bool] = []
    for part in document.parts:
        if part.text_ids is None:
            if part.is_drawn:
                flags.append(False)  # <boi>
            continue
        ids = part.text_ids.tolist()
        marks = [False] * len(ids)
        met: set[int] = set()
        for number, forms in enumerate(names):
            for form in map(list, forms):
                for start in range(len(ids) - len(form) + 1):
                    if ids[start : start + len(form)] == form:
                        met.add(number)
                        if number in known:
                            marks[start : start + len(form)] = [True] * len(form)
        known |= met
        flags += marks
    if not document.is_open:
        flags.append(False)  # <eos>
    return flags
