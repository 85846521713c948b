"""Attention under the one rule by kernels of our own, for training on a GPU.

They serve whatever the rule allows: causal documents, blocks, pictures with their copies. Nothing
is padded, and what documents a batch holds compiles nothing anew. Legend: ``B`` rows, ``H`` query
heads, ``H_kv`` key heads, ``n`` positions of a row, ``d`` width of a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unimm.document import Spans
from unimm.nn.span_launch import empty_like, run_forward, run_gradients
from unimm.nn.span_tiles import KeyLists, Tile, Tiles, find_key_lists, find_query_ranges

TILES = {
    64: Tiles(
        forward=Tile(queries=64, keys=64, num_warps=4, num_stages=2),
        query_gradient=Tile(queries=64, keys=64, num_warps=4, num_stages=2, max_registers=128),
        key_gradient=Tile(queries=64, keys=64, num_warps=4, num_stages=3, is_split=False),
    ),
    128: Tiles(
        forward=Tile(queries=64, keys=64, num_warps=4, num_stages=2),
        query_gradient=Tile(queries=64, keys=64, num_warps=4, num_stages=2),
        key_gradient=Tile(queries=32, keys=128, num_warps=8, num_stages=2),
    ),
    256: Tiles(
        forward=Tile(queries=64, keys=32, num_warps=8, num_stages=1),
        query_gradient=Tile(queries=32, keys=32, num_warps=8, num_stages=1),
        key_gradient=Tile(queries=32, keys=32, num_warps=8, num_stages=1),
    ),
}
"""By width of heads, for those up to it; those of 64 are an H200's best, the others guesses."""
CAUSAL_TILES = {
    64: Tiles(
        forward=Tile(queries=64, keys=64, num_warps=4, num_stages=3),
        query_gradient=Tile(queries=64, keys=64, num_warps=4, num_stages=2, max_registers=128),
        key_gradient=Tile(queries=64, keys=64, num_warps=4, num_stages=3, max_registers=168),
    ),
}
"""What replaces them in causal batches, whose masks cost less."""


@dataclass(frozen=True, kw_only=True)
class SpanTiles:
    """A batch's rule as the kernels read it, found once for all layers.

    Attributes:
        width: of heads that tiles are cut for, an entry of ``TILES``.
        document_starts: ``(B, n)`` int32, first position of a query's document.
        key_spans: ``(B, n, 2)`` int32: the first query that sees a key, one past the last.
        forward: tiles that the forward goes through.
        query_gradient: the same for gradients of queries.
        query_ranges: of ``find_query_ranges``, for gradients of keys.
    """

    width: int
    document_starts: Tensor
    key_spans: Tensor
    forward: KeyLists
    query_gradient: KeyLists
    query_ranges: Tensor


def tiles_for(width: int, *, is_causal: bool) -> Tiles:
    """How kernels are cut for an entry of ``TILES``."""
    return CAUSAL_TILES.get(width, TILES[width]) if is_causal else TILES[width]


def cut_spans(spans: Spans, *, head_width: int, is_causal: bool) -> SpanTiles:
    """Prepare a batch's spans for the kernels.

    Args:
        spans: of the batch.
        head_width: of the heads that will attend, ``d``.
        is_causal: everything is context and blocks are single positions.

    Raises:
        ValueError: heads are too wide.
    """
    width = min((w for w in TILES if w >= head_width), default=0)
    if not width:
        raise ValueError(
            f"heads of width {head_width} are too wide for these kernels, which go up to "
            f"{max(TILES)}: use backend 'flex'"
        )
    tiles = tiles_for(width, is_causal=is_causal)
    seen_from, seen_until = spans.of_keys()
    forward = find_key_lists(spans, tiles.forward, is_causal=is_causal)
    is_same = (tiles.forward.queries, tiles.forward.keys) == (
        tiles.query_gradient.queries,
        tiles.query_gradient.keys,
    )
    return SpanTiles(
        width=width,
        document_starts=spans.document_start,
        key_spans=torch.stack((seen_from, seen_until), -1),
        forward=forward,
        query_gradient=forward
        if is_same
        else find_key_lists(spans, tiles.query_gradient, is_causal=is_causal),
        query_ranges=find_query_ranges(seen_from, seen_until, tiles.key_gradient),
    )


def span_attention(query: Tensor, key: Tensor, value: Tensor, tiles: SpanTiles) -> Tensor:
    """Scaled dot-product attention under the rule; who sees nothing gets zeros.

    Args:
        query: ``(B, H, n, d)``, in any order in memory.
        key: ``(B, H_kv, n, d)``; each key head serves ``H / H_kv`` query heads.
        value: as ``key``.
        tiles: of the batch.

    Returns:
        ``(B, H, n, d)``, in memory ``(B, n, H, d)``.
    """
    return _attention(
        query,
        key,
        value,
        tiles.document_starts,
        tiles.key_spans,
        tiles.forward.ranges,
        tiles.forward.starts,
        tiles.query_gradient.ranges,
        tiles.query_gradient.starts,
        tiles.query_ranges,
        tiles.width,
    )[0]


@torch.library.custom_op("unimm::span_attention", mutates_args=())
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    ranges: Tensor,
    starts: Tensor,
    gradient_ranges: Tensor,
    gradient_starts: Tensor,
    query_ranges: Tensor,
    width: int,
) -> tuple[Tensor, Tensor]:
    """Result, and log2 of the sum of each query's powers, ``(B, H, n)`` float32."""
    lists = KeyLists(ranges=ranges, starts=starts)
    tile = tiles_for(width, is_causal=lists.is_causal).forward
    return run_forward(query, key, value, document_starts, key_spans, lists, tile)


@torch.library.custom_op("unimm::span_attention_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    log_sums: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    ranges: Tensor,
    starts: Tensor,
    query_ranges: Tensor,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    lists = KeyLists(ranges=ranges, starts=starts)
    inputs = (query, key, value)
    found = (empty_like(query), empty_like(key), empty_like(value))
    run_gradients(
        inputs,
        *(out, gradient, log_sums, document_starts, key_spans, lists, query_ranges),
        tiles_for(width, is_causal=lists.is_causal),
        found,
    )
    return found


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)


@_attention_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_like(query), empty_like(key), empty_like(value)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.width = inputs
    query, key, value, document_starts, key_spans, _, _, ranges, starts, query_ranges = tensors
    rule = (document_starts, key_spans, ranges, starts, query_ranges)
    ctx.save_for_backward(query, key, value, *output, *rule)


def _gradients(ctx: Any, gradient: Tensor, _log_sums: Tensor) -> tuple[Tensor | None, ...]:
    found = _attention_backward(gradient, *ctx.saved_tensors, ctx.width)
    return *found, *[None] * 8


_attention.register_autograd(_gradients, setup_context=_keep)
