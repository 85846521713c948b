"""The one attention rule: who sees whom in packed rows ``(B, L)``."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unimm.document.packing import Batch


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


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The rule as unbroken spans of keys, for whatever must not compare every pair's ids.

    Blocks never fall inside a document, nor segments, nor documents inside a row: all of them are
    unbroken runs. So a query sees its document's contexts, and the other positions of its own
    segment, up to the end of its block: the same pairs as ``may_see`` allows.

    Attributes:
        document_start: ``(B, L)`` int32, first position of the query's document.
        segment_start: ``(B, L)`` int32, first position of its segment.
        block_end: ``(B, L)`` int32, one past the last position of its block.
        is_context: ``(B, L)`` bool, of keys.
    """

    document_start: Tensor
    segment_start: Tensor
    block_end: Tensor
    is_context: Tensor

    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Make FlexAttention's ``mask_mod(b, head, query, key)``.

        It looks at three small numbers of a query where ``may_see`` compares ids of each pair.
        """
        document_start, segment_start = self.document_start, self.segment_start
        block_end, context = self.block_end, self.is_context

        def mask_mod(b: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            start = torch.where(context[b, k], document_start[b, q], segment_start[b, q])
            return (k >= start) & (k < block_end[b, q])

        return mask_mod

    def of_keys(self) -> tuple[Tensor, Tensor]:
        """Say the same from the keys' side: each is seen by one unbroken span of queries.

        Returns:
            The first query that sees a key and one past the last, both ``(B, L)`` int32.
        """
        length, device = self.block_end.shape[1], self.block_end.device
        places = torch.arange(length, dtype=torch.int32, device=device)
        keys = places.expand_as(self.block_end).contiguous()

        def first_above(numbers: Tensor) -> Tensor:
            """The first query whose number, which never falls along a row, is above a key."""
            return torch.searchsorted(numbers, keys, right=True, out_int32=True)

        document_end, segment_end = map(first_above, (self.document_start, self.segment_start))
        until = torch.where(self.is_context, document_end, segment_end)
        return first_above(self.block_end), until

    def count(self) -> int:
        """Count the pairs of query and key, without making the mask."""
        found = torch.zeros((), dtype=torch.int64, device=self.block_end.device)
        for keys, start in (
            (self.is_context, self.document_start),
            (~self.is_context, self.segment_start),
        ):
            before = functional.pad(keys.cumsum(1), (1, 0))  # (B, L + 1) of such keys
            seen = before.gather(1, self.block_end.long()) - before.gather(1, start.long())
            found += seen.sum()
        return int(found)


def visible_spans(batch: Batch) -> Spans:
    """Find where each query's document and segment begin and where its block ends."""
    length, documents = batch.block_ids.shape[1], batch.document_ids
    # Each id is counted inside of the one before it: so made, the three never fall along a row.
    segments = torch.add(batch.segment_ids, documents, alpha=length)
    blocks = torch.add(batch.block_ids, segments, alpha=length)

    def find(ids: Tensor, *, is_end: bool = False) -> Tensor:
        """Where the run of a position's id begins, or one past its end, ``(B, L)``."""
        return torch.searchsorted(ids, ids, right=is_end, out_int32=True)

    return Spans(
        document_start=find(documents),
        segment_start=find(segments),
        block_end=find(blocks, is_end=True),
        is_context=batch.is_context,
    )


def count_visible(batch: Batch) -> int:
    """Count the pairs of query and key that the rule allows."""
    return visible_spans(batch).count()
