"""The one attention rule: who sees whom in packed rows ``(B, L)``."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
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
    with its block, because blocks never fall and segments and blocks are unbroken runs. It is
    counted block by block, on the host.
    """
    length = batch.block_ids.shape[1]
    new_document = _changes(batch.document_ids)
    new_document[::length] = True
    new_segment = new_document | _changes(batch.segment_ids)
    starts = np.flatnonzero(new_segment | _changes(batch.block_ids))  # of blocks
    ends = np.append(starts[1:], len(new_document))

    def begins(is_new: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Where the run that each block lies in begins."""
        return np.maximum.accumulate(np.where(is_new[starts], starts, 0))

    contexts = np.append(0, batch.is_context.numpy().ravel().cumsum())
    others = np.arange(len(contexts)) - contexts
    seen = contexts[ends] - contexts[begins(new_document)]
    seen += others[ends] - others[begins(new_segment)]
    return int(((ends - starts) * seen).sum())


def _changes(ids: Tensor) -> NDArray[np.bool_]:
    """Whether each flattened position's id differs from the one before."""
    flat = ids.numpy().ravel()
    return np.append(True, flat[1:] != flat[:-1])


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
