"""Attention behind one function: dense mask, FlexAttention, or variable-length flash attention.

All three compute the one rule of ``unimm.document``; which is used depends on the device and on
what the batch holds, never on the image objective.
"""

import functools
import inspect
import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from unimm.document import Batch, Spans, attention_rule, visible_spans
from unimm.nn.sequence import SequenceGroup

# PyTorch's choice for heads of 64 on Hopper, tiles of 128 x 128 by four warps, has more numbers in
# hand than registers: its forward takes ten times as long as its backward.
FLEX_OPTIONS: dict[str, Any] = {"fwd_num_warps": 8}
Backend = Literal["auto", "dense", "flex", "varlen"]


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Who sees whom, in the form that the chosen backend reads; one of the first three is set.

    Attributes:
        dense: ``(B, 1, n, S)`` bool.
        flex: a FlexAttention ``BlockMask``.
        cu_seqlens: ``(K + 1,)`` int32 document starts in the flattened positions.
        max_seqlen: bound of a document's length, for ``cu_seqlens``.
        kernel: what computes ``flex`` or ``cu_seqlens``; looked up here, outside of compiled code.
        sequence: the ranks that hold the other stretches of the rows, if rows are shared.
    """

    dense: Tensor | None = None
    flex: Any = None
    cu_seqlens: Tensor | None = None
    max_seqlen: int = 0
    kernel: Any = None
    sequence: SequenceGroup | None = None


def choose_backend(batch: Batch, dtype: torch.dtype) -> Backend:
    """Pick the fastest exact backend.

    Causal batches take varlen (on CUDA in half precision only, which its flash kernels ask for);
    others take flex on CUDA and the dense mask on a CPU, where flex has no backward.
    """
    if batch.input_ids.device.type != "cuda":
        return "varlen" if batch.is_causal else "dense"
    is_half = dtype != torch.float32 or torch.is_autocast_enabled("cuda")
    return "varlen" if batch.is_causal and is_half else "flex"


def batch_visibility(
    batch: Batch, backend: Backend = "auto", *, dtype: torch.dtype = torch.float32
) -> Visibility:
    """Prepare a packed batch's attention rule for a backend.

    Args:
        batch: packed rows.
        backend: ``auto`` chooses by device, batch and number format.
        dtype: of the hidden states.

    Raises:
        ValueError: if ``varlen`` is asked for a batch with blocks of several positions.
    """
    backend = choose_backend(batch, dtype) if backend == "auto" else backend
    if backend == "varlen":
        if not batch.is_causal:
            raise ValueError(
                "varlen attention is causal inside documents, but this batch has blocks of several "
                "positions: use backend 'flex' or 'dense'"
            )
        return Visibility(
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            kernel=_causal_varlen() if batch.labels.is_cuda else _causal_one_by_one,
        )
    if backend == "flex":
        return Visibility(flex=block_mask(visible_spans(batch)), kernel=_flex_attention())
    return Visibility(dense=attention_rule(batch)[:, None])


def block_mask(spans: Spans, *, block_size: int = 128) -> Any:
    """Say which blocks of pairs FlexAttention computes, and in which it asks for each pair.

    The pairs of a block are counted from the spans: PyTorch's ``create_block_mask`` makes the mask
    of all pairs first.

    Returns:
        A ``BlockMask`` of ``(B, 1, L, L)``.
    """
    from torch.nn.attention.flex_attention import BlockMask

    length = spans.block_end.shape[1]
    num_blocks = -(-length // block_size)
    bounds = torch.arange(num_blocks + 1, device=spans.block_end.device) * block_size
    seen = spans.count(bounds.clamp(max=length))  # (B, L, K)
    seen = functional.pad(seen, (0, 0, 0, num_blocks * block_size - length))
    pairs = seen.unflatten(1, (num_blocks, block_size)).sum(2)[:, None]  # (B, 1, K, K)
    is_full = pairs == block_size**2

    def ordered(chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Number of the chosen key blocks of each query block, and these first."""
        first = chosen.int().argsort(dim=-1, descending=True, stable=True)
        return chosen.sum(-1, dtype=torch.int32), first.int()

    return BlockMask.from_kv_blocks(
        *ordered((pairs > 0) & ~is_full),
        *ordered(is_full),
        BLOCK_SIZE=block_size,
        mask_mod=spans.mask_mod(),
        seq_lengths=(length, length),
    )


def attend(query: Tensor, key: Tensor, value: Tensor, visibility: Visibility) -> Tensor:
    """Scaled dot-product attention under the rule.

    Args:
        query: ``(B, H, n, head_dim)``; where rows are shared, this rank's stretch of them.
        key: ``(B, H_kv, S, head_dim)``; each key head serves ``H / H_kv`` query heads.
        value: as ``key``.
        visibility: who sees whom.

    Returns:
        ``(B, H, n, head_dim)``.
    """
    if visibility.sequence is not None:
        group, whole = visibility.sequence, replace(visibility, sequence=None)
        query, key, value = map(group.to_heads, (query, key, value))
        return group.to_positions(attend(query, key, value, whole))
    is_grouped = query.shape[1] != key.shape[1]
    if visibility.cu_seqlens is not None:
        return _attend_varlen(query, key, value, visibility)
    if visibility.flex is not None:
        return visibility.kernel(
            query,
            key,
            value,
            block_mask=visibility.flex,
            enable_gqa=is_grouped,
            kernel_options=FLEX_OPTIONS,
        )
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visibility.dense, enable_gqa=is_grouped
    )


def _attend_varlen(query: Tensor, key: Tensor, value: Tensor, visibility: Visibility) -> Tensor:
    """Causal attention inside each document of the flattened rows, by a flash kernel."""
    assert visibility.cu_seqlens is not None
    num_rows, num_heads, length, head_dim = query.shape
    groups = num_heads // key.shape[1]
    if groups > 1:  # not every version's kernel groups heads itself
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)

    def flat(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(num_rows * length, num_heads, head_dim)

    bounds, longest = visibility.cu_seqlens, visibility.max_seqlen
    out = visibility.kernel(flat(query), flat(key), flat(value), bounds, longest)
    return out.view(num_rows, length, num_heads, head_dim).transpose(1, 2)


@functools.cache
def _causal_varlen() -> Any:
    """``(q, k, v, cu_seqlens, max_seqlen) -> out``, from flash_attn if installed, else PyTorch."""
    try:
        from flash_attn import flash_attn_varlen_func  # pyright: ignore[reportMissingImports]
    except ImportError:
        from torch.nn.attention.varlen import varlen_attn

        # PyTorch renamed ``is_causal`` to a window when windows came.
        takes_window = "window_size" in inspect.signature(varlen_attn).parameters
        causal: dict[str, Any] = {"window_size": (-1, 0)} if takes_window else {"is_causal": True}
        return lambda q, k, v, bounds, longest: varlen_attn(
            q, k, v, bounds, bounds, longest, longest, **causal
        )
    return lambda q, k, v, bounds, longest: flash_attn_varlen_func(
        q, k, v, bounds, bounds, longest, longest, causal=True
    )


def _causal_one_by_one(
    query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, _longest: int
) -> Tensor:
    """Varlen attention on a CPU: each document by itself, so that no masked score is computed.

    Twice as fast as the dense mask on rows of two four-page stories.
    """
    parts: list[Tensor] = []
    for start, end in itertools.pairwise(bounds.tolist()):
        q, k, v = (x[start:end].transpose(0, 1)[None] for x in (query, key, value))
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        parts.append(out[0].transpose(0, 1))  # (n, H, head_dim)
    return torch.cat(parts)


@functools.cache
def _flex_attention() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    # Uncompiled FlexAttention materialises every score; the CPU has no compiled backward.
    return torch.compile(flex_attention) if torch.cuda.is_available() else flex_attention
