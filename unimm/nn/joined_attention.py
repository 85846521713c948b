"""From one product of queries, keys and values to what attention gives, by kernels of our own.

Heads are normalised and rotated in one pass, attention reads values where the product left them,
and its backward writes all gradients where the product's backward reads them: nothing is copied.
Legend as in ``span_attention.py``; ``W`` is ``(H + 2 H_kv) d``, queries first, values last.
"""

from typing import Any

import torch
from torch import Tensor

from unimm.nn.kernel_blocks import next_power
from unimm.nn.span_attention import SpanTiles, tiles_for
from unimm.nn.span_launch import run_forward, run_gradients
from unimm.nn.span_tiles import KeyLists

ROTATION = (2048, 2)
"""Numbers of heads that a program of the rotation has in hand at once, and its warps (H200)."""
PROGRAMS = 528
"""Of its gradient, at most: as many as an H100 runs at once, four a multiprocessor."""
_WARP_NUMBERS = 512
"""Of half a position's heads that a warp of the gradient has in hand."""


def joined_attention(
    joined: Tensor,
    norms: tuple[Tensor, Tensor] | None,
    rope: tuple[Tensor, Tensor],
    tiles: SpanTiles,
    *,
    num_heads: int,
    width: int,
    eps: float = 0.0,
) -> Tensor:
    """Normalise and rotate queries and keys, then attend under the rule.

    Args:
        joined: ``(B, n, W)``.
        norms: weights ``(d,)`` of the RMSNorm of queries and of keys, or none.
        rope: of ``rope_cos_sin``, ``(B, 1, n, d)`` each.
        tiles: of the batch.
        num_heads: query heads ``H``.
        width: of a head, ``d``.
        eps: of the norms.

    Returns:
        ``(B, n, H d)``.
    """
    query_weight, key_weight = norms or (joined.new_empty(0), joined.new_empty(0))
    return _attention(
        joined,
        query_weight,
        key_weight,
        *rope,
        tiles.document_starts,
        tiles.key_spans,
        tiles.forward.ranges,
        tiles.forward.starts,
        tiles.query_gradient.ranges,
        tiles.query_gradient.starts,
        tiles.query_ranges,
        tiles.width,
        num_heads,
        width,
        eps,
    )[0]


@torch.library.custom_op("unimm::joined_attention", mutates_args=())
def _attention(
    joined: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cosines: Tensor,
    sines: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    ranges: Tensor,
    starts: Tensor,
    gradient_ranges: Tensor,
    gradient_starts: Tensor,
    query_ranges: Tensor,
    entry: int,
    num_heads: int,
    width: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, rotated heads ``(B, n, H + H_kv, d)`` and log-sums ``(B, H, n)``."""
    joined, cosines, sines = (x.contiguous() for x in (joined, cosines, sines))
    num_rows, length, size = joined.shape
    num_rotated = _num_rotated(size, num_heads, width)
    rotated = joined.new_empty(num_rows, length, num_rotated, width)
    block_half, num_warps = next_power(width // 2), ROTATION[1]
    block_rows = max(1, ROTATION[0] // (2 * block_half))
    _kernels().rotate_kernel[(-(-rotated[..., 0].numel() // block_rows),)](
        *(joined, query_weight, key_weight, cosines, sines, rotated),
        *(rotated[..., 0].numel(), size, eps),
        num_heads=num_heads,
        num_rotated=num_rotated,
        width=width,
        has_norm=query_weight.numel() > 0,
        block_rows=block_rows,
        block_half=block_half,
        num_warps=num_warps,
    )
    lists = KeyLists(ranges=ranges, starts=starts)
    tile = tiles_for(entry, is_causal=lists.is_causal).forward
    inputs = _heads(joined, rotated, num_heads)
    out, log_sums = run_forward(*inputs, document_starts, key_spans, lists, tile)
    return out.transpose(1, 2).flatten(2), rotated, log_sums


@torch.library.custom_op("unimm::joined_attention_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor,
    joined: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cosines: Tensor,
    sines: Tensor,
    out: Tensor,
    rotated: Tensor,
    log_sums: Tensor,
    document_starts: Tensor,
    key_spans: Tensor,
    ranges: Tensor,
    starts: Tensor,
    query_ranges: Tensor,
    entry: int,
    num_heads: int,
    width: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of ``joined``, and of the norms' weights, ``(2, d)`` float32."""
    gradient, joined, cosines, sines = (x.contiguous() for x in (gradient, joined, cosines, sines))
    lists = KeyLists(ranges=ranges, starts=starts)
    found = torch.empty_like(joined)
    num_rotated = rotated.shape[2]
    by_head = found.unflatten(-1, (-1, width)).transpose(1, 2)
    for_query, for_key, for_value = (
        by_head[:, :num_heads],
        by_head[:, num_heads:num_rotated],
        by_head[:, num_rotated:],
    )
    out, gradient = (x.unflatten(-1, (num_heads, width)).transpose(1, 2) for x in (out, gradient))
    run_gradients(
        _heads(joined, rotated, num_heads),
        *(out, gradient, log_sums, document_starts, key_spans, lists, query_ranges),
        tiles_for(entry, is_causal=lists.is_causal),
        (for_query, for_key, for_value),
    )
    return found, _run_rotate_gradient(
        joined, query_weight, key_weight, cosines, sines, found, num_heads, num_rotated, eps
    )


def _run_rotate_gradient(
    joined: Tensor,
    query_weight: Tensor,
    key_weight: Tensor,
    cosines: Tensor,
    sines: Tensor,
    found: Tensor,
    num_heads: int,
    num_rotated: int,
    eps: float,
) -> Tensor:
    """Turn the gradients in ``found`` back; those of the weights, ``(2, d)``."""
    num_rows, length, size = joined.shape
    width = cosines.shape[-1]
    block_heads, block_half = next_power(num_rotated), next_power(width // 2)
    num_programs = min(PROGRAMS, num_rows * length)
    for_weights = joined.new_empty(num_programs, 2, width, dtype=torch.float32)
    has_norm = query_weight.numel() > 0
    _kernels().rotate_gradient_kernel[(num_programs,)](
        *(joined, query_weight, key_weight, cosines, sines, found, for_weights),
        *(num_rows * length, size, size, eps),
        num_heads=num_heads,
        num_rotated=num_rotated,
        width=width,
        has_norm=has_norm,
        block_heads=block_heads,
        block_half=block_half,
        num_warps=min(max(1, block_heads * block_half // _WARP_NUMBERS), 16),
    )
    return _kernels().sum_rows(for_weights) if has_norm else for_weights.new_empty(2, 0)


@_attention.register_fake
def _(joined: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    num_heads, width = others[-3], others[-2]
    num_rows, length, size = joined.shape
    num_rotated = _num_rotated(size, num_heads, width)
    return (
        joined.new_empty(num_rows, length, num_heads * width),
        joined.new_empty(num_rows, length, num_rotated, width),
        joined.new_empty(num_rows, num_heads, length, dtype=torch.float32),
    )


@_attention_backward.register_fake
def _(gradient: Tensor, joined: Tensor, query_weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    for_weights = joined.new_empty(2, query_weight.numel(), dtype=torch.float32)
    return torch.empty_like(joined, memory_format=torch.contiguous_format), for_weights


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    joined, query_weight, key_weight, cosines, sines, *rule = inputs[:12]
    document_starts, key_spans, _, _, ranges, starts, query_ranges = rule
    ctx.sizes = inputs[12:]
    heads = (joined, query_weight, key_weight, cosines, sines)
    ctx.save_for_backward(*heads, *output, document_starts, key_spans, ranges, starts, query_ranges)


def _gradients(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    kept = ctx.saved_tensors  # once: checkpointing computes them anew
    found, for_weights = _attention_backward(gradient, *kept, *ctx.sizes)
    weights = (given.to(weight.dtype) for given, weight in zip(for_weights, kept[1:3], strict=True))
    return found, *weights, *[None] * 13


_attention.register_autograd(_gradients, setup_context=_keep)


def _heads(joined: Tensor, rotated: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``(B, heads, n, d)`` where they lie."""
    num_rotated, width = rotated.shape[2:]
    turned = rotated.transpose(1, 2)
    value = joined[..., num_rotated * width :].unflatten(-1, (-1, width)).transpose(1, 2)
    return turned[:, :num_heads], turned[:, num_heads:], value


def _num_rotated(size: int, num_heads: int, width: int) -> int:
    """Heads of queries and keys."""
    return num_heads + (size // width - num_heads) // 2


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import layer_kernels

    return layer_kernels
