"""Attention that normalises its own heads, for denoisers whose pictures have few patches.

Legend: ``B`` pictures, ``H`` heads, ``n`` queries and ``m`` keys a picture, ``W`` width of a head.
"""

import math
from typing import Any

import torch
from torch import Tensor

from unimm.nn.kernel_blocks import next_power

TILES = (64, 64, 4, 2)
"""Queries and keys in hand at once, warps, and tiles of keys under way."""
REGISTERS = 128
"""Of a thread, at most: four programs at once instead of three (33 for 36 us on an H100)."""
MOST_KEYS = 256
"""Up to here it is faster than norms in a pass of their own and the library's attention.

On an H100, 16 pictures of 256 places, 16 heads of 72: 33 us for 44; 64 of 64 places 19 for 46; at
512 places 101 for 102, at 1024 longer.
"""
WIDEST = 80
"""Of heads: wider ones want more registers, and were not timed."""


def can_attend(query: Tensor, key: Tensor) -> bool:
    """Whether the kernel serves heads ``(B, H, n, W)`` and ``(B, H, m, W)`` that may be fused."""
    is_half = query.dtype in (torch.bfloat16, torch.float16)
    return is_half and 16 <= query.shape[-1] <= WIDEST and 0 < key.shape[2] <= MOST_KEYS


def normed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: tuple[Tensor, Tensor],
    *,
    eps: float,
) -> Tensor:
    """RMSNorm of queries and keys, and attention without a mask.

    Args:
        query: ``(B, H, n, W)`` in half precision; all heads of a place lie behind each other.
        key: ``(B, H, m, W)``, likewise.
        value: as ``key``.
        weights: ``(W,)`` of the queries' norm and of the keys'.
        eps: of the norms.

    Returns:
        ``(B, n, H W)``.
    """
    given = (query, key, value)
    batch, num_heads, num_queries, width = query.shape
    assert all(x.stride(-1) == 1 and (num_heads == 1 or x.stride(1) == width) for x in given), [
        x.stride() for x in given
    ]
    out = query.new_empty(batch, num_queries, num_heads * width)
    if not out.numel():
        return out
    block_queries, block_keys, num_warps, num_stages = TILES
    whole = 1 << (width.bit_length() - 1)
    rest = width - whole
    _kernels().normed_attention_kernel[(-(-num_queries // block_queries), num_heads, batch)](
        *(*given, *weights, out),
        *(x.stride(axis) for x in given for axis in (0, 2)),
        *(num_queries, eps, width**-0.5 * math.log2(math.e)),
        num_keys=key.shape[2],
        width=width,
        whole=whole,
        rest=max(16, next_power(rest)) if rest else 0,
        block_queries=block_queries,
        block_keys=block_keys,
        num_warps=num_warps,
        num_stages=num_stages,
        maxnreg=REGISTERS,
    )
    return out


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import normed_attention_kernels

    return normed_attention_kernels
