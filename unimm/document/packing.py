"""Packing: several documents to a row, several rows to a batch, as heads and objectives read it.

Legend: ``B`` rows, ``L`` row length, ``N`` positions that one objective reads, ``M`` pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unimm.document.buffer import Place, join, split
from unimm.document.layout import HEAD_NONE, HEAD_TEXT, IGNORE, NO_CODE, Ids, Layout
from unimm.document.parts import ImageTokens


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
        max_seqlen: an upper bound of a document's length, padding's too: the row length, since
            layers are compiled anew for each value.
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
        return self._through_buffer(lambda buffer: buffer.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Pin every tensor, for asynchronous copies (a ``DataLoader`` calls this)."""
        return self._through_buffer(Tensor.pin_memory)

    def _through_buffer(self, move: Callable[[Tensor], Tensor]) -> "Batch":
        """Move all tensors at once."""
        buffer, rest = _take_apart(self)
        return _put_together(move(buffer), rest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave a loader worker as one tensor, in shared memory."""
        return _put_together, _take_apart(self, is_shared=True)


def _take_apart(batch: Batch, *, is_shared: bool = False) -> tuple[Tensor, dict[str, Any]]:
    """A batch's tensors in one buffer, and its fields with places where tensors were."""
    tensors: list[Tensor] = []

    def take(tensor: Tensor) -> Place:
        tensors.append(tensor)
        return Place.of(tensor)

    rest = _map_leaves(vars(batch), Tensor, take)
    return join(tensors, is_shared=is_shared), rest


def _put_together(buffer: Tensor, rest: dict[str, Any]) -> Batch:
    places: list[Place] = []
    _map_leaves(rest, Place, places.append)
    tensors = split(buffer, places)
    return Batch(**_map_leaves(rest, Place, lambda _: next(tensors)))


def _map_leaves(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        items = cast(dict[Any, Any], value).items()
        return {key: _map_leaves(item, kind, function) for key, item in items}
    if isinstance(value, ImageTokens):
        return value.map(function)
    if isinstance(value, Slots):
        return replace(value, **_map_leaves(vars(value), kind, function))
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

    shape = (num_rows, row_length)
    rows_of = {
        "input_ids": np.full(shape, pad_id),
        "code_ids": np.full(shape, NO_CODE),
        "labels": np.full(shape, IGNORE),
        "position_ids": np.zeros((*shape, 3), dtype=np.int64),
        # Padding: one position a block, so that a causal batch stays causal.
        "block_ids": np.tile(np.arange(row_length), (num_rows, 1)),
        "segment_ids": np.zeros(shape, dtype=np.int64),
        "is_context": np.ones(shape, dtype=bool),
    }
    document_ids = np.zeros(shape, dtype=np.int64)
    head_index: dict[str, list[Ids]] = {head: [] for head in ("text", *heads)}
    images: dict[str, list[ImageTokens]] = {head: [] for head in heads}
    seeds: dict[str, list[int]] = {head: [] for head in heads}
    bounds: list[int] = [0]

    for b, row in enumerate(rows):
        start = 0
        for d, item in enumerate(row):
            span = slice(start, start + len(item))
            for name, array in rows_of.items():
                array[b, span] = getattr(item, name)
            document_ids[b, span] = d
            for head, index in item.head_index.items():
                head_index[head].append(index + (b * row_length + start))
            for head, found in item.images.items():
                images[head] += found
                seeds[head] += [mix_seed(seed, item.index, k) for k in range(len(found))]
            start += len(item)
            bounds.append(b * row_length + start)
        document_ids[b, start:] = len(row)
        bounds += [(b + 1) * row_length] * (1 + limit - len(row))

    head_ids = np.full(shape, HEAD_NONE)
    slots: dict[str, Slots] = {}
    for number, (head, parts) in enumerate(head_index.items()):
        index = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        head_ids.reshape(-1)[index] = HEAD_TEXT + number
        found = images.get(head, [])
        per_image = len(index) // max(len(found), 1)
        slots[head] = Slots(
            index=_tensor(index),
            image_ids=torch.arange(len(found)).repeat_interleave(per_image)
            if found
            else torch.zeros(len(index), dtype=torch.int64),
            tokens=ImageTokens.stack(found) if found else None,
            seeds=tuple(seeds.get(head, [])),
        )
    return Batch(
        **{name: _tensor(array) for name, array in rows_of.items()},
        head_ids=_tensor(head_ids),
        document_ids=_tensor(document_ids),
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


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]
