# pyright: basic, reportMissingImports=false
"""Triton kernels of GroupNorm and SiLU on a GPU, channels last; PyTorch's would turn the layout.

Legend: ``B`` pictures, ``P`` places, ``C`` channels, ``G`` groups, ``S`` parts that a picture is
summed in. Sums are float32.
"""

import triton
import triton.language as tl


@triton.jit
def load_places(x, picture, first, end, num_places, G: tl.constexpr, width: tl.constexpr,
                padded: tl.constexpr, block: tl.constexpr):  # fmt: skip
    """Where ``block`` places lie, which of them and their channels there are, and their numbers."""
    place = first + tl.arange(0, block)
    channel = tl.arange(0, padded)
    group = tl.arange(0, G)
    offset = (group * width)[:, None] + channel[None, :]  # (G, C / G)
    is_in = (place < end)[:, None, None] & (channel < width)[None, None, :]
    at = (picture * num_places + place)[:, None, None] * (G * width) + offset[None, :, :]
    return at, is_in, tl.load(x + at, mask=is_in, other=0.0).to(tl.float32)


@triton.jit
def sum_kernel(
    x, sums, num_places, part,
    G: tl.constexpr, width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Sums and sums of squares of each group: ``x (B, P, C)`` to ``(B, S, 2, G)``."""
    picture, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    total = tl.zeros((G,), tl.float32)
    squares = tl.zeros((G,), tl.float32)
    end = tl.minimum((number + 1) * part, num_places)
    for first in range(number * part, end, block):
        _, _, tile = load_places(x, picture, first, end, num_places, G, width, padded, block)
        by_group = tl.sum(tile, 0)
        total += tl.sum(by_group, 1)
        squares += tl.sum(tl.sum(tile * tile, 0), 1)
    target = sums + (picture * tl.num_programs(1) + number) * 2 * G + tl.arange(0, G)
    tl.store(target, total)
    tl.store(target + G, squares)


@triton.jit
def apply_kernel(
    x, sums, weight, bias, out, num_places, part, eps,
    G: tl.constexpr, width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
    parts: tl.constexpr,
):  # fmt: skip
    """``silu(group_norm(x))``, ``(B, P, C)``."""
    picture, number = tl.program_id(0).to(tl.int64), tl.program_id(1)
    group = tl.arange(0, G)
    found = sums + (picture * parts + tl.arange(0, parts))[:, None] * 2 * G + group[None, :]
    count = num_places * width
    mean = tl.sum(tl.load(found), 0) / count
    scale = tl.rsqrt(tl.sum(tl.load(found + G), 0) / count - mean * mean + eps)
    channel = tl.arange(0, padded)
    offset = (group * width)[:, None] + channel[None, :]
    there = (channel < width)[None, :]
    gain = tl.load(weight + offset, mask=there, other=0.0).to(tl.float32) * scale[:, None]
    shift = tl.load(bias + offset, mask=there, other=0.0).to(tl.float32) - mean[:, None] * gain
    end = tl.minimum((number + 1) * part, num_places)
    for first in range(number * part, end, block):
        at, is_in, tile = load_places(x, picture, first, end, num_places, G, width, padded, block)
        tile = tile * gain[None, :, :] + shift[None, :, :]
        tile = tile * tl.sigmoid(tile)
        tl.store(out + at, tile.to(out.dtype.element_ty), mask=is_in)
