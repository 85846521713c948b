"""From parts to one row: segments, positions, labels, blocks, and what is dropped.

``n`` positions of a segment or document, ``h, w`` a picture's code grid.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar, Protocol, cast

import torch
from torch import Tensor

from unimm.document.parts import Document, ImageTokens, SpecialIds

IGNORE = -100  # a label that no head predicts
NO_CODE = -1  # a position whose input is not an image code
NULL_CODE = -2  # a picture that was dropped: the learned null embedding
HEAD_NONE = 0
HEAD_TEXT = 1  # objectives follow, in the order of the batch's ``heads``


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One span of positions.

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

    input_ids: Tensor
    code_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    block_ids: Tensor
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

    def context(self, codes: Tensor, special: SpecialIds) -> Segment:
        """A clean picture as later positions read it, without ``<boi>``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A document as one run of positions, not yet packed; the fields are those of ``Batch``."""

    input_ids: Tensor
    code_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    block_ids: Tensor
    segment_ids: Tensor
    is_context: Tensor
    head_index: dict[str, Tensor]  # head -> (k,) positions it reads, in picture order
    images: dict[str, tuple[ImageTokens, ...]]
    is_causal: bool  # every block is one position and everything is context
    index: int = 0

    def __len__(self) -> int:
        """Count of positions."""
        return self.input_ids.shape[0]


def image_positions(height: int, width: int) -> Tensor:
    """Positions of a picture's grid relative to its first: time 0, row i, column j.

    Returns:
        ``(height * width, 3)`` int64, raster order.
    """
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1)


def _text_segment(ids: list[int], labels: list[int], special: SpecialIds) -> Segment:
    input_ids = torch.tensor(ids, dtype=torch.int64)
    bad = next((i for i in ids if not 0 <= i < special.vocab_size), None)
    if bad is not None:
        raise ValueError(
            f"text id {bad} is out of range: the vocabulary has {special.vocab_size} ids; "
            "was this text encoded by another tokenizer?"
        )
    order = torch.arange(len(ids))
    return Segment(
        input_ids=input_ids,
        code_ids=torch.full_like(input_ids, NO_CODE),
        labels=torch.tensor(labels, dtype=torch.int64),
        position_ids=order[:, None].expand(-1, 3),
        block_ids=order,
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
    draws = [float(x) for x in torch.rand(len(document.parts) + 1, generator=generator)]
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
        builder.add(_text_segment(pending, labels, special))
        is_last = i == num_parts - 1
        codes = torch.full_like(part.tokens.codes, NULL_CODE) if is_hidden else part.tokens.codes
        if is_target:
            target = objective.layout(part.tokens, special)
            if not objective.is_own_context:
                builder.add(_text_segment([special.boi], [IGNORE], special))
            if objective.is_own_context or (document.is_open and is_last):
                builder.add(target)
            else:
                builder.add(target, objective.context(codes, special))
        else:
            builder.add(_text_segment([special.boi], [IGNORE], special))
            builder.add(objective.context(codes, special))
        pending, labels = [special.eoi], []
        if document.is_open and is_last:
            pending = []

    if pending:
        last_hidden = (num_parts - 1) in hidden_parts
        labels.append(IGNORE if document.is_open or last_hidden else special.eos)
        builder.add(_text_segment(pending, labels, special))
    return builder.finish(objective.name, document.index)


class _Builder:
    """Concatenates segments, giving each its absolute positions, block and segment numbers."""

    def __init__(self, special: SpecialIds) -> None:
        self.special = special
        self.segments: list[Segment] = []
        self.starts: list[int] = []
        self.cursor = 0

    def add(self, segment: Segment, copy: Segment | None = None) -> None:
        """Add a segment, and the context copy that shares the picture's positions."""
        start = self.cursor
        for part in (segment,) if copy is None else (segment, copy):
            self.segments.append(part)
            self.starts.append(start)
            self.cursor = max(self.cursor, start + int(part.position_ids.max()) + 1)

    def finish(self, objective_name: str, index: int) -> Layout:
        segments = self.segments
        lengths = [segment.input_ids.shape[0] for segment in segments]
        blocks: list[Tensor] = []
        next_block = 0
        for segment in segments:
            blocks.append(segment.block_ids + next_block)
            next_block += int(segment.block_ids[-1]) + 1
        labels = torch.cat([segment.labels for segment in segments])
        offsets = itertools.accumulate(lengths, initial=0)
        head_index: dict[str, list[Tensor]] = {"text": [], objective_name: []}
        images: list[ImageTokens] = []
        for segment, offset in zip(segments, offsets, strict=False):
            head_index[segment.head].append(offset + (segment.labels != IGNORE).nonzero()[:, 0])
            if segment.image is not None:
                images.append(segment.image)
        empty = torch.zeros(0, dtype=torch.int64)
        return Layout(
            input_ids=torch.cat([segment.input_ids for segment in segments]),
            code_ids=torch.cat([segment.code_ids for segment in segments]),
            labels=labels,
            position_ids=torch.cat(
                [s.position_ids + start for s, start in zip(segments, self.starts, strict=True)]
            ),
            block_ids=torch.cat(blocks),
            segment_ids=torch.repeat_interleave(torch.arange(len(segments)), torch.tensor(lengths)),
            is_context=torch.cat(
                [torch.full((n,), s.is_context) for s, n in zip(segments, lengths, strict=True)]
            ),
            head_index={
                head: torch.cat(index) if index else empty for head, index in head_index.items()
            },
            images={objective_name: tuple(images)},
            is_causal=next_block == len(labels) and all(s.is_context for s in segments),
            index=index,
        )
