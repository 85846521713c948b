"""From parts to one row: segments, positions, labels, blocks, and what is dropped.

Segments and layouts are NumPy arrays, of which ``pack`` makes tensors: a segment has a hundred
positions, and at that size an operation of PyTorch takes longer to call than to compute.

``n`` positions of a segment or document, ``h, w`` a picture's code grid.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from unimm.document.parts import Document, ImageTokens, SpecialIds

IGNORE = -100  # a label that no head predicts
NO_CODE = -1  # a position whose input is not an image code
NULL_CODE = -2  # a picture that was dropped: the learned null embedding
HEAD_NONE = 0
HEAD_TEXT = 1  # objectives follow, in the order of the batch's ``heads``

Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One span of positions; its arrays may be shared with other segments, so they are read only.

    Attributes:
        input_ids: ``(n,)`` int64 text ids; ``<pad>`` where a code or an objective fills the input.
        code_ids: ``(n,)`` int64 image codes, ``NO_CODE`` or ``NULL_CODE``.
        labels: ``(n,)`` int64 in the head's own ids; ``IGNORE`` where nothing is predicted.
        position_ids: ``(n, 3)`` int64 (time, row, column) relative to where the segment starts.
        block_ids: ``(n,)`` int64 from 0, never falling; positions of one block see each other.
        head: which head reads the labelled positions: ``text`` or an objective's name.
        is_context: whether later segments may read it.
        image: the picture an objective predicts here.
    """

    input_ids: Ids
    code_ids: Ids
    labels: Ids
    position_ids: Ids
    block_ids: Ids
    head: str
    is_context: bool = True
    image: ImageTokens | None = None


class ImageLayout(Protocol):
    """What ``layout_document`` asks of an objective's configuration (``objectives/base.py``)."""

    name: ClassVar[str]  # the head's name
    is_own_context: ClassVar[bool]  # later positions read the target itself: no copy follows

    @property
    def schedule(self) -> str:
        """Name of the code layout that its pictures are encoded in."""
        ...

    def layout(self, tokens: ImageTokens, special: SpecialIds) -> Segment:
        """The target: the picture as this objective predicts it.

        ``<boi>`` stands before it and is context, unless the target is its own context: there
        ``<boi>`` predicts, so it is the target's first position.
        """
        ...

    def context(self, codes: Ids, special: SpecialIds) -> Segment:
        """A clean picture as later positions read it, without ``<boi>``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A document as one run of positions, not yet packed; the fields are those of ``Batch``."""

    input_ids: Ids
    code_ids: Ids
    labels: Ids
    position_ids: Ids
    block_ids: Ids
    segment_ids: Ids
    is_context: NDArray[np.bool_]
    head_index: dict[str, Ids]  # head -> (k,) positions it reads, in picture order
    images: dict[str, tuple[ImageTokens, ...]]
    is_causal: bool  # every block is one position and everything is context
    index: int = 0

    def __len__(self) -> int:
        """Count of positions."""
        return self.input_ids.shape[0]


@lru_cache(maxsize=64)
def image_positions(height: int, width: int) -> Ids:
    """Positions of a picture's grid relative to its first: time 0, row i, column j.

    Returns:
        ``(height * width, 3)`` int64, raster order; read only.
    """
    rows, columns = np.divmod(np.arange(height * width), width)
    return read_only(np.stack([np.zeros_like(rows), rows, columns], axis=1))


@lru_cache(maxsize=1024)
def _text_positions(count: int) -> Ids:
    return read_only(np.repeat(np.arange(count)[:, None], 3, axis=1))


def read_only(array: Ids) -> Ids:
    """Forbid writing into an array that is cached."""
    array.flags.writeable = False
    return array


def _text_segment(ids: list[int], labels: list[int]) -> Segment:
    positions = _text_positions(len(ids))
    return Segment(
        input_ids=np.array(ids),
        code_ids=np.full(len(ids), NO_CODE),
        labels=np.array(labels),
        position_ids=positions,
        block_ids=positions[:, 0],
        head="text",
    )


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Which parts of a document are hidden, so that guidance has something to contrast with.

    Attributes:
        parts: indices of the parts replaced by ``<null>`` tokens or the null picture. Nothing
            inside them is predicted.
    """

    parts: frozenset[int] = frozenset()


def sample_dropped(document: Document, generator: torch.Generator, rate: float) -> Dropped:
    """Choose what a training document hides: all its text, or single parts.

    With probability ``rate`` every text is hidden; else every text and every picture that something
    follows is hidden with probability ``rate`` each.
    """
    drawn = torch.rand(len(document.parts) + 1, generator=generator)
    draws = cast(list[float], drawn.tolist())  # pyright: ignore[reportUnknownMemberType]
    texts = [i for i, part in enumerate(document.parts) if part.is_text]
    if draws[-1] < rate:
        return Dropped(parts=frozenset(texts))
    last = len(document.parts) - 1
    return Dropped(
        parts=frozenset(i for i in range(len(document.parts)) if draws[i] < rate and i != last)
    )


def layout_document(
    document: Document,
    objective: ImageLayout,
    special: SpecialIds,
    *,
    dropped: Dropped | None = None,
) -> Layout:
    """Lay a tokenised document out as segments in a row and shift the labels, once and here.

    ``labels[i]`` is what ``hidden[i]`` predicts. Text begins with ``<bos>``; ``<boi>`` is predicted
    by the text before a drawn picture; ``<eoi>`` is never predicted and predicts what follows; the
    last position of a closed document predicts ``<eos>``. Text advances all three position axes;
    a picture starting at p has time p, row p + i, column p + j; what follows starts at max + 1.

    Args:
        document: parts with ``text_ids`` or ``tokens``.
        objective: how pictures are laid out.
        special: ids of the special tokens.
        dropped: parts to hide behind null inputs.

    Raises:
        ValueError: on raw parts, ids out of range or an empty document.
    """
    hidden_parts = dropped.parts if dropped else frozenset[int]()
    builder = _Builder(special)
    pending = [special.bos]  # inputs not yet written out
    labels: list[int] = []  # labels of ``pending``; the last one is still open
    num_parts = len(document.parts)
    if num_parts == 0:
        raise ValueError(f"document {document.index} is empty")

    for i, part in enumerate(document.parts):
        is_hidden = i in hidden_parts
        if part.is_text:
            if part.text_ids is None:
                raise ValueError(f"part {i} of document {document.index} is raw text: encode first")
            ids = cast(list[int], part.text_ids.tolist())  # pyright: ignore[reportUnknownMemberType]
            if is_hidden:
                labels += [IGNORE] * len(ids)
                pending += [special.null] * len(ids)
            else:
                labels += ids
                pending += ids
            continue

        if part.tokens is None or part.tokens.codes is None:
            raise ValueError(
                f"part {i} of document {document.index} is a raw picture: encode first"
            )
        is_target = part.is_drawn and not is_hidden
        before_hidden = i > 0 and (i - 1) in hidden_parts
        labels.append(special.boi if part.is_drawn and not before_hidden else IGNORE)
        builder.add(_text_segment(pending, labels))
        is_last = i == num_parts - 1
        codes = part.tokens.codes.numpy()  # (h, w)
        if is_hidden:
            codes = np.full_like(codes, NULL_CODE)
        if is_target:
            target = objective.layout(part.tokens, special)
            if not objective.is_own_context:
                builder.add(_text_segment([special.boi], [IGNORE]))
            if objective.is_own_context or (document.is_open and is_last):
                builder.add(target)
            else:
                builder.add(target, objective.context(codes, special))
        else:
            builder.add(_text_segment([special.boi], [IGNORE]))
            builder.add(objective.context(codes, special))
        pending, labels = [special.eoi], []
        if document.is_open and is_last:
            pending = []

    if pending:
        last_hidden = (num_parts - 1) in hidden_parts
        labels.append(IGNORE if document.is_open or last_hidden else special.eos)
        builder.add(_text_segment(pending, labels))
    return builder.finish(objective.name, document.index)


class _Builder:
    """Concatenates segments, giving each its absolute positions, block and segment numbers."""

    def __init__(self, special: SpecialIds) -> None:
        self.special = special
        self.segments: list[Segment] = []
        self.is_copy: list[bool] = []  # whether it starts where the segment before it does

    def add(self, segment: Segment, copy: Segment | None = None) -> None:
        """Add a segment, and the context copy that shares the picture's positions."""
        self.segments.append(segment)
        self.is_copy.append(False)
        if copy is not None:
            self.segments.append(copy)
            self.is_copy.append(True)

    def finish(self, objective_name: str, index: int) -> Layout:
        """Join the segments.

        Raises:
            ValueError: a text id is out of range.
        """
        segments = self.segments
        lengths = np.array([segment.input_ids.shape[0] for segment in segments])
        ends = lengths.cumsum()
        segment_ids = np.repeat(np.arange(len(segments)), lengths)  # (n,)
        input_ids = np.concatenate([segment.input_ids for segment in segments])
        self._check_ids(input_ids)

        position_ids = np.concatenate([segment.position_ids for segment in segments])  # (n, 3)
        extents = np.maximum.reduceat(position_ids.ravel(), 3 * (ends - lengths)) + 1
        position_ids += self._starts(extents)[segment_ids, None]
        block_ids = np.concatenate([segment.block_ids for segment in segments])
        num_blocks = block_ids[ends - 1] + 1
        block_ids += (num_blocks.cumsum() - num_blocks)[segment_ids]

        labels = np.concatenate([segment.labels for segment in segments])
        labelled = np.flatnonzero(labels != IGNORE)
        is_text = np.array([segment.head == "text" for segment in segments])[segment_ids[labelled]]
        is_context = np.array([segment.is_context for segment in segments])
        return Layout(
            input_ids=input_ids,
            code_ids=np.concatenate([segment.code_ids for segment in segments]),
            labels=labels,
            position_ids=position_ids,
            block_ids=block_ids,
            segment_ids=segment_ids,
            is_context=is_context[segment_ids],
            head_index={
                "text": labelled[is_text],
                objective_name: labelled[~is_text],
            },
            images={objective_name: tuple(s.image for s in segments if s.image is not None)},
            is_causal=bool(num_blocks.sum() == len(labels) and is_context.all()),
            index=index,
        )

    def _starts(self, extents: Ids) -> Ids:
        """Where each segment's positions begin: behind all before it, or with what it copies."""
        starts: list[int] = []
        cursor = 0
        for extent, is_copy in zip(extents.tolist(), self.is_copy, strict=True):
            starts.append(starts[-1] if is_copy else cursor)
            cursor = max(cursor, starts[-1] + extent)
        return np.array(starts)

    def _check_ids(self, input_ids: Ids) -> None:
        size = self.special.vocab_size
        if input_ids.min() < 0 or input_ids.max() >= size:
            bad = input_ids[(input_ids < 0) | (input_ids >= size)][0]
            raise ValueError(
                f"text id {bad} is out of range: the vocabulary has {size} ids; "
                "was this text encoded by another tokenizer?"
            )
