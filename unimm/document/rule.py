"""The one attention rule: who sees whom in packed rows ``(B, L)``."""

from collections.abc import Callable

import torch
from torch import Tensor

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


def count_visible(batch: Batch) -> int:
    """Count the pairs of query and key that the rule allows, without making the mask.

    What a query sees of its document's contexts, and of its own segment's other positions, ends
    with its block, because blocks never fall and segments and blocks are unbroken runs.
    """
    num_rows, length = batch.block_ids.shape
    rows = torch.arange(num_rows).repeat_interleave(length)
    documents = _run_bounds(rows, batch.document_ids)[0]
    segments = _run_bounds(rows, batch.document_ids, batch.segment_ids)[0]
    ends = _run_bounds(rows, batch.document_ids, batch.segment_ids, batch.block_ids)[1]

    def count_before(flags: Tensor) -> Tensor:
        return torch.cat([flags.new_zeros(1, dtype=torch.int64), flags.flatten().cumsum(0)])

    contexts, others = count_before(batch.is_context), count_before(~batch.is_context)
    seen = contexts[ends] - contexts[documents] + others[ends] - others[segments]
    return int(seen.sum())


def _run_bounds(*ids: Tensor) -> tuple[Tensor, Tensor]:
    """Start and end of the run of equal ids that each flattened position lies in."""
    stacked = torch.stack([x.flatten() for x in ids])
    changes = (stacked[:, 1:] != stacked[:, :-1]).any(0)
    starts = torch.cat([changes.new_ones(1), changes])
    bounds = torch.cat([starts.nonzero()[:, 0], torch.tensor([len(starts)])])
    run = starts.cumsum(0) - 1
    return bounds[run], bounds[run + 1]


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
