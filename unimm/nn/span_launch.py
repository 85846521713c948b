"""Launches of the span kernels: results, and gradients of queries, of keys and values.

Legend as in ``span_attention.py``.
"""

import math
from typing import Any

import torch
from torch import Tensor

from unimm.nn.kernel_blocks import next_power
from unimm.nn.span_tiles import KeyLists, Tile, Tiles


def run_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    lists: KeyLists,
    tile: Tile,
) -> tuple[Tensor, Tensor]:
    """Launch the forward.

    Args:
        query: ``(B, H, n, d)``, in any order in memory.
        key: ``(B, H_kv, n, d)``.
        value: as ``key``.
        document_starts: of ``SpanTiles``.
        key_spans: of ``SpanTiles``.
        lists: of tiles.
        tile: how the kernel is cut.

    Returns:
        Result ``(B, H, n, d)``, and log2 of the sum of each query's powers, ``(B, H, n)`` float32.
    """
    query, key, value = map(_heads_whole, (query, key, value))
    out, log_sums = empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)
    num_rows, num_heads, length, width = query.shape
    _kernels().attend_kernel[(lists.ranges.shape[1], num_heads, num_rows)](
        *(query, key, value, out, log_sums, document_starts, key_spans),
        *(lists.ranges, lists.starts),
        *(*query.stride()[:3], *key.stride()[:3], *value.stride()[:3]),
        *(length, lists.starts.shape[-1], width**-0.5 * math.log2(math.e)),
        has_gaps=not lists.is_causal,
        **_options(query, key, tile),
    )
    return out, log_sums


def run_gradients(
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    gradient: Tensor,
    log_sums: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    lists: KeyLists,
    query_ranges: Tensor,
    tiles: Tiles,
    found: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Launch the whole backward.

    Args:
        inputs: query ``(B, H, n, d)``, key and value ``(B, H_kv, n, d)``.
        out: what the forward gave, as the query.
        gradient: of ``out``.
        log_sums: what the forward gave, ``(B, H, n)``.
        document_starts: of ``SpanTiles``.
        key_spans: of ``SpanTiles``.
        lists: of tiles, for the queries' gradient.
        query_ranges: of ``SpanTiles``.
        tiles: how the kernels are cut.
        found: as ``inputs``, to fill; the heads of a position must follow each other.
    """
    pairs = _run_query_gradient(
        inputs,
        *(out, gradient, log_sums, document_starts, key_spans, lists),
        tiles.query_gradient,
        found[0],
    )
    _run_key_gradient(
        inputs, gradient, pairs, key_spans, query_ranges, tiles.key_gradient, found[1:]
    )


def _run_query_gradient(
    inputs: tuple[Tensor, Tensor, Tensor],
    out: Tensor,
    gradient: Tensor,
    log_sums: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    lists: KeyLists,
    tile: Tile,
    found: Tensor,
) -> Tensor:
    """Fill the queries' gradient; pairs ``(B, H, n, 2)`` float32 that the keys' backward reads."""
    query, key, value, gradient = map(_heads_whole, (*inputs, gradient))
    num_rows, num_heads, length, width = query.shape
    pairs = log_sums.new_empty(*log_sums.shape, 2)
    _kernels().query_gradient_kernel[(lists.ranges.shape[1], num_heads, num_rows)](
        *(query, key, value, out.transpose(1, 2).contiguous(), gradient, log_sums, pairs, found),
        *(document_starts, key_spans, lists.ranges, lists.starts),
        *(*query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *gradient.stride()[:3]),
        *(_position_stride(found), length, lists.starts.shape[-1]),
        *(width**-0.5 * math.log2(math.e), width**-0.5),
        has_gaps=not lists.is_causal,
        **_options(query, key, tile),
    )
    return pairs


def _run_key_gradient(
    inputs: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor,
    pairs: Tensor,
    key_spans: Tensor,
    query_ranges: Tensor,
    tile: Tile,
    found: tuple[Tensor, Tensor],
) -> None:
    """Fill the gradients of keys and values."""
    query, key, value, gradient = map(_heads_whole, (*inputs, gradient))
    num_rows, num_kv_heads, length, width = key.shape
    _kernels().key_gradient_kernel[(query_ranges.shape[1], num_kv_heads, num_rows)](
        *(query, key, value, gradient, pairs, *found, key_spans, query_ranges),
        *(*query.stride()[:3], *key.stride()[:3], *value.stride()[:3], *gradient.stride()[:3]),
        *(*map(_position_stride, found), length, width**-0.5 * math.log2(math.e), width**-0.5),
        **_options(query, key, tile),
    )


def empty_like(x: Tensor) -> Tensor:
    """As ``x (B, H, n, d)``, in memory ``(B, n, H, d)``, as the products before and after it."""
    num_rows, num_heads, length, width = x.shape
    return x.new_empty(num_rows, length, num_heads, width).transpose(1, 2)


def _options(query: Tensor, key: Tensor, tile: Tile) -> dict[str, Any]:
    """What a kernel is compiled for."""
    width = query.shape[-1]
    return {
        "group": query.shape[1] // key.shape[1],
        "width": width,
        "block_width": max(16, next_power(width)),  # a product takes 16 at least
        "num_queries": tile.queries,
        "num_keys": tile.keys,
        "is_split": tile.is_split,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        **({"maxnreg": tile.max_registers} if tile.max_registers else {}),
    }


def _heads_whole(x: Tensor) -> Tensor:
    """The numbers of a head must lie together; all else is read where it is."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _position_stride(found: Tensor) -> int:
    """How far the positions of ``(B, H, n, d)`` lie apart, whose heads follow each other."""
    num_rows, num_heads, length, width = found.shape
    row, head, position, number = found.stride()
    assert (head == width or num_heads == 1) and number == 1, found.stride()
    assert row == length * position or num_rows == 1, found.stride()
    return position


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import span_kernels

    return span_kernels
