"""Attention behind one function: our kernels, flash attention, FlexAttention or a dense mask.

All of them compute the one rule of ``unimm.document``; which is used depends on the device and on
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
from torch.utils._triton import has_triton_package

from unimm.document import Batch, attention_rule, visible_spans
from unimm.nn.sequence import SequenceGroup
from unimm.nn.span_attention import cut_spans, span_attention

# PyTorch's tiles for heads of 64 on Hopper, 128 x 128 by four warps, keep more numbers in hand than
# there are registers: measured on an H200, the forward takes 24 ms with them, .6 ms with these.
FLEX_OPTIONS: dict[str, Any] = {"fwd_BLOCK_M": 64, "fwd_BLOCK_N": 64}
WIDEST_MEASURED = 64
"""Width of heads that our kernels have been timed with; others may ask for them by name."""
Backend = Literal["auto", "dense", "flex", "varlen", "spans"]


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """Who sees whom, in the form that the chosen backend reads: the one of four that is set.

    Attributes:
        dense: ``(B, 1, n, S)`` bool.
        flex: a FlexAttention ``BlockMask``.
        cu_seqlens: ``(K + 1,)`` int32 document starts in the flattened positions.
        max_seqlen: bound of a document's length, for ``cu_seqlens``.
        spans: ``SpanTiles``, for our kernels.
        kernel: what computes all but ``dense``; looked up here, outside of compiled code.
        sequence: the ranks that hold the other stretches of the rows, if rows are shared.
    """

    dense: Tensor | None = None
    flex: Any = None
    cu_seqlens: Tensor | None = None
    max_seqlen: int = 0
    spans: Any = None
    kernel: Any = None
    sequence: SequenceGroup | None = None


def choose_backend(batch: Batch, dtype: torch.dtype, *, head_width: int = 64) -> Backend:
    """Pick the fastest exact backend.

    On a CPU, where flex has no backward, causal batches go document by document and others take the
    dense mask.
    """
    if batch.input_ids.device.type != "cuda":
        return "varlen" if batch.is_causal else "dense"
    is_half = dtype != torch.float32 or torch.is_autocast_enabled("cuda")
    return gpu_backend(
        batch, is_half=is_half, head_width=head_width, has_triton=has_triton_package()
    )


def gpu_backend(
    batch: Batch, *, is_half: bool, head_width: int, has_triton: bool = True
) -> Backend:
    """Pick the fastest exact backend of a GPU.

    Our kernels and flash attention's, which varlen is and which are causal, want half precision.
    """
    if is_half and has_triton and head_width <= WIDEST_MEASURED:
        return "spans"
    return "varlen" if is_half and batch.is_causal else "flex"


def batch_visibility(
    batch: Batch,
    backend: Backend = "auto",
    *,
    dtype: torch.dtype = torch.float32,
    head_width: int = 64,
) -> Visibility:
    """Prepare a packed batch's attention rule for a backend.

    Args:
        batch: packed rows.
        backend: ``auto`` chooses by device, batch and number format.
        dtype: of the hidden states.
        head_width: of the trunk's heads, for which ``spans`` cuts its tiles.

    Raises:
        ValueError: if ``varlen`` is asked for a batch with blocks of several positions, or
            ``spans`` for heads wider than its kernels hold.
    """
    if backend == "auto":
        backend = choose_backend(batch, dtype, head_width=head_width)
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
    if backend == "spans":
        spans = visible_spans(batch)
        tiles = cut_spans(spans, head_width=head_width, is_causal=batch.is_causal)
        return Visibility(spans=tiles, kernel=span_attention)
    if backend == "flex":
        num_rows, length = batch.input_ids.shape
        mask_mod = visible_spans(batch).mask_mod()
        mask = _block_mask_builder()(
            mask_mod, num_rows, None, length, length, device=batch.labels.device
        )
        return Visibility(flex=mask, kernel=_flex_attention())
    return Visibility(dense=attention_rule(batch)[:, None])


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
    if visibility.spans is not None:
        return visibility.kernel(query, key, value, visibility.spans)
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


@functools.cache
def _block_mask_builder() -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask) if torch.cuda.is_available() else create_block_mask
