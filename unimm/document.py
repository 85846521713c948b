"""Documents, their layout in one sequence, packing, and the one attention rule.

Legend of shapes: ``B`` rows of a batch, ``L`` row length, ``n`` positions of a segment or document,
``N`` positions that one objective reads in a batch, ``M`` pictures, ``h, w`` a picture's code
grid.

The way of a document: parts -> ``layout_document`` (segments in a row, positions, labels) ->
``pack`` (several documents to a row, several rows to a ``Batch``) -> ``attention_rule``.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor

IGNORE = -100  # a label that no head predicts
NO_CODE = -1  # a position whose input is not an image code
NULL_CODE = -2  # a picture that was dropped: the learned null embedding
HEAD_NONE = 0
HEAD_TEXT = 1  # objectives follow, in the order of the batch's ``heads``


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """A picture, or a stack of equally large ones, as the image tokenizer gives it.

    Attributes:
        codes: single-scale codes ``(..., h, w)`` int64; what contexts are made of. Beside
            ``scale_codes`` they are found from the sum of these.
        scale_codes: one ``(..., h_k, w_k)`` int64 a scale, coarse to fine; empty without a pyramid.
        latents: ``(..., C, h, w)`` float, what the code lookup sees.
    """

    codes: Tensor | None = None
    scale_codes: tuple[Tensor, ...] = ()
    latents: Tensor | None = None

    @property
    def has_codes(self) -> bool:
        """Whether there are codes of any kind."""
        return self.codes is not None or bool(self.scale_codes)

    def map(self, function: Callable[[Tensor], Tensor]) -> "ImageTokens":
        """Apply ``function`` to every tensor."""
        return ImageTokens(
            codes=None if self.codes is None else function(self.codes),
            scale_codes=tuple(function(codes) for codes in self.scale_codes),
            latents=None if self.latents is None else function(self.latents),
        )

    def __getitem__(self, index: int | slice) -> "ImageTokens":
        """Pick from the leading dimension."""
        return self.map(lambda tensor: tensor[index])

    def _grid(self) -> tuple[int, ...]:
        """Shape of the finest grid."""
        finest = (self.codes, *reversed(self.scale_codes), self.latents)
        return next(tuple(tensor.shape) for tensor in finest if tensor is not None)

    @staticmethod
    def stack(images: Sequence["ImageTokens"]) -> "ImageTokens":
        """Stack pictures of one size along a new leading dimension.

        Raises:
            ValueError: if the pictures differ in size.
        """
        shapes = {image._grid() for image in images}
        if len(shapes) > 1:
            raise ValueError(
                f"pictures of one batch must share a code grid, found {sorted(shapes)}: "
                "resize them, or bucket documents by picture size"
            )
        return ImageTokens._join(images, torch.stack)

    @staticmethod
    def cat(stacks: Sequence["ImageTokens"]) -> "ImageTokens":
        """Join stacks of pictures along their leading dimension."""
        return ImageTokens._join(stacks, torch.cat)

    @staticmethod
    def _join(
        images: Sequence["ImageTokens"], function: Callable[[list[Tensor]], Tensor]
    ) -> "ImageTokens":
        first = images[0]
        return ImageTokens(
            codes=None
            if first.codes is None
            else function([image.codes for image in images if image.codes is not None]),
            scale_codes=tuple(
                function(list(scale))
                for scale in zip(*(i.scale_codes for i in images), strict=True)
            ),
            latents=None
            if first.latents is None
            else function([image.latents for image in images if image.latents is not None]),
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """Text or a picture of a document; exactly one of the first four is set.

    Attributes:
        text: raw text.
        text_ids: ``(n,)`` int64, the same tokenised.
        pixels: ``(3, H, W)`` uint8, a raw picture.
        tokens: the same encoded.
        is_drawn: whether the model shall learn to draw the picture; a given one is only read.
    """

    text: str | None = None
    text_ids: Tensor | None = None
    pixels: Tensor | None = None
    tokens: ImageTokens | None = None
    is_drawn: bool = True

    def __post_init__(self) -> None:
        given = [
            name
            for name in ("text", "text_ids", "pixels", "tokens")
            if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise ValueError(f"a part is text or one picture, got {given or 'nothing'}")

    @property
    def is_text(self) -> bool:
        """Whether this is text and not a picture."""
        return self.text is not None or self.text_ids is not None


@dataclass(frozen=True, kw_only=True)
class Document:
    """Text and pictures in any order.

    Attributes:
        parts: what the document holds, in reading order.
        is_open: it ends in a picture after which nothing follows (a caption pair): no ``<eoi>``,
            no context copy and no ``<eos>`` are laid out.
        index: number of the document in its source; seeds its randomness.
    """

    parts: tuple[Part, ...]
    is_open: bool = False
    index: int = 0


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of the special tokens in the text vocabulary, and its size."""

    pad: int
    bos: int
    eos: int
    boi: int
    eoi: int
    null: int
    vocab_size: int


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


@dataclass(frozen=True, kw_only=True)
class Slots:
    """The positions of a batch that one head reads.

    Attributes:
        index: ``(N,)`` int64 into the flattened ``(B * L)`` positions; picture after picture.
        image_ids: ``(N,)`` int64, the picture each belongs to.
        tokens: the ``M`` pictures, stacked; None for the text head or when there are none.
        seeds: one a picture, so that its randomness is the same on any rank and after resume.
    """

    index: Tensor
    image_ids: Tensor
    tokens: ImageTokens | None = None
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed rows.

    Attributes:
        input_ids: ``(B, L)`` int64 text ids.
        code_ids: ``(B, L)`` int64 image codes, ``NO_CODE`` or ``NULL_CODE``.
        head_ids: ``(B, L)`` int64: none, text, or ``2 +`` the objective's place in ``heads``.
        labels: ``(B, L)`` int64 in the head's own ids, or ``IGNORE``.
        position_ids: ``(B, L, 3)`` int64.
        document_ids: ``(B, L)`` int64, counted inside a row; padding is a document of its own.
        segment_ids: ``(B, L)`` int64, counted inside a document.
        block_ids: ``(B, L)`` int64, never falling inside a document.
        is_context: ``(B, L)`` bool.
        slots: head -> the positions it reads.
        heads: names of the objectives.
        is_causal: every block is one position and all is context, so that plain causal attention
            inside each document is the rule.
        cu_seqlens: ``(B * K + 1,)`` int32, where documents start in the flattened positions, padded
            to a fixed length with the end, for variable-length attention.
        max_seqlen: an upper bound of a document's length (the row length: a constant).
    """

    input_ids: Tensor
    code_ids: Tensor
    head_ids: Tensor
    labels: Tensor
    position_ids: Tensor
    document_ids: Tensor
    segment_ids: Tensor
    block_ids: Tensor
    is_context: Tensor
    slots: dict[str, Slots]
    heads: tuple[str, ...]
    is_causal: bool
    cu_seqlens: Tensor
    max_seqlen: int
    document_indices: tuple[tuple[int, ...], ...] = field(default=())

    def to(self, device: torch.device | str) -> "Batch":
        """Copy every tensor to ``device`` without waiting for it."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Pin every tensor, for asynchronous copies (a ``DataLoader`` calls this)."""
        return _map_tensors(self, lambda tensor: tensor.pin_memory())


def _map_tensors(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        items = cast(dict[Any, Any], value).items()
        return {key: _map_tensors(item, function) for key, item in items}
    if isinstance(value, ImageTokens):
        return value.map(function)
    if isinstance(value, (Batch, Slots)):
        changed = {f.name: _map_tensors(getattr(value, f.name), function) for f in fields(value)}
        return replace(value, **changed)
    return value


def pack(
    rows: Sequence[Sequence[Layout]],
    *,
    row_length: int,
    heads: Sequence[str],
    pad_id: int = 0,
    max_documents: int | None = None,
    seed: int = 0,
) -> Batch:
    """Put documents one after another into rows of equal length.

    Args:
        rows: the documents of each row; which go together is the loader's choice.
        row_length: ``L``.
        heads: names of all objectives of the model, in its order.
        pad_id: text id of the padding.
        max_documents: fixed size of ``cu_seqlens`` a row (compiled code wants one shape); by
            default the largest number of documents in a row.
        seed: of the run; joined with the document's index it seeds each picture's randomness.

    Raises:
        ValueError: if a document, or the documents of a row, are longer than the row.
    """
    num_rows = len(rows)
    for row in rows:
        for item in row:
            if len(item) > row_length:
                raise ValueError(
                    f"document {item.index} has {len(item)} positions, longer than a row of "
                    f"{row_length}: raise row_length, or drop documents with more pages"
                )
        if sum(map(len, row)) > row_length:
            raise ValueError(
                f"documents of {[len(item) for item in row]} positions do not fit a row of "
                f"{row_length}"
            )
    limit = max_documents or max(len(row) for row in rows)
    if any(len(row) > limit for row in rows):
        raise ValueError(f"a row holds {max(map(len, rows))} documents, max_documents is {limit}")

    def full(value: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.full((num_rows, row_length), value, dtype=dtype)

    input_ids, code_ids, labels = full(pad_id), full(NO_CODE), full(IGNORE)
    head_ids, document_ids, segment_ids = full(HEAD_NONE), full(0), full(0)
    is_context = full(1, torch.bool)
    # Padding: one position a block, so that a causal batch stays causal.
    block_ids = torch.arange(row_length).repeat(num_rows, 1)
    position_ids = torch.zeros(num_rows, row_length, 3, dtype=torch.int64)
    head_index: dict[str, list[Tensor]] = {head: [] for head in ("text", *heads)}
    images: dict[str, list[ImageTokens]] = {head: [] for head in heads}
    seeds: dict[str, list[int]] = {head: [] for head in heads}
    bounds: list[int] = [0]

    for b, row in enumerate(rows):
        start = 0
        for d, item in enumerate(row):
            span = slice(start, start + len(item))
            input_ids[b, span] = item.input_ids
            code_ids[b, span] = item.code_ids
            labels[b, span] = item.labels
            position_ids[b, span] = item.position_ids
            block_ids[b, span] = item.block_ids
            segment_ids[b, span] = item.segment_ids
            is_context[b, span] = item.is_context
            document_ids[b, span] = d
            for head, index in item.head_index.items():
                head_index[head].append(index + b * row_length + start)
            for head, found in item.images.items():
                images[head] += found
                seeds[head] += [mix_seed(seed, item.index, k) for k in range(len(found))]
            start += len(item)
            bounds.append(b * row_length + start)
        document_ids[b, start:] = len(row)
        bounds += [(b + 1) * row_length] * (1 + limit - len(row))

    slots: dict[str, Slots] = {}
    for number, (head, parts) in enumerate(head_index.items()):
        index = torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64)
        head_ids.view(-1)[index] = HEAD_TEXT + number
        found = images.get(head, [])
        per_image = len(index) // max(len(found), 1)
        slots[head] = Slots(
            index=index,
            image_ids=torch.arange(len(found)).repeat_interleave(per_image)
            if found
            else torch.zeros_like(index),
            tokens=ImageTokens.stack(found) if found else None,
            seeds=tuple(seeds.get(head, [])),
        )
    return Batch(
        input_ids=input_ids,
        code_ids=code_ids,
        head_ids=head_ids,
        labels=labels,
        position_ids=position_ids,
        document_ids=document_ids,
        segment_ids=segment_ids,
        block_ids=block_ids,
        is_context=is_context,
        slots=slots,
        heads=tuple(heads),
        is_causal=all(item.is_causal for row in rows for item in row),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        max_seqlen=row_length,
        document_indices=tuple(tuple(item.index for item in row) for row in rows),
    )


def mix_seed(run_seed: int, document_index: int, picture: int) -> int:
    """Mix three numbers into a 63-bit seed (splitmix64's constants)."""
    value = run_seed
    for number in (document_index, picture):
        value = (value ^ (number + 0x9E3779B97F4A7C15)) * 0xBF58476D1CE4E5B9 % 2**64
        value ^= value >> 27
    return value % 2**63


def may_see(
    *,
    query_document: Tensor,
    key_document: Tensor,
    query_block: Tensor,
    key_block: Tensor,
    query_segment: Tensor,
    key_segment: Tensor,
    key_is_context: Tensor,
) -> Tensor:
    """The one attention rule, on any shapes that broadcast.

    A query sees a key if both lie in one document, the key's block is not later, and the key is
    context or in the query's own segment. Blocks of one position give causal attention; one block
    a scale gives VAR's mask; one block an image is bidirectional inside it, causal outside.
    """
    return (
        (query_document == key_document)
        & (key_block <= query_block)
        & (key_is_context | (query_segment == key_segment))
    )


def attention_rule(batch: Batch) -> Tensor:
    """The rule as a dense mask.

    Returns:
        ``(B, L, L)`` bool, True where query ``[b, i]`` may attend to key ``[b, j]``.
    """
    return may_see(
        query_document=batch.document_ids[:, :, None],
        key_document=batch.document_ids[:, None, :],
        query_block=batch.block_ids[:, :, None],
        key_block=batch.block_ids[:, None, :],
        query_segment=batch.segment_ids[:, :, None],
        key_segment=batch.segment_ids[:, None, :],
        key_is_context=batch.is_context[:, None, :],
    )


def attention_mask_mod(batch: Batch) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The rule as FlexAttention's ``mask_mod(b, head, query, key)``: the same predicate."""
    document, block = batch.document_ids, batch.block_ids
    segment, context = batch.segment_ids, batch.is_context

    def mask_mod(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return may_see(
            query_document=document[b, q],
            key_document=document[b, k],
            query_block=block[b, q],
            key_block=block[b, k],
            query_segment=segment[b, q],
            key_segment=segment[b, k],
            key_is_context=context[b, k],
        )

    return mask_mod
