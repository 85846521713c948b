# pyright: basic, reportMissingImports=false
"""Triton kernels between a decoder's convolutions: bias, residual, GroupNorm, SiLU, upsampling.

All of them wait for memory, so each number is read and written as rarely as can be. Legend: ``B``
pictures, ``P`` places, ``C`` channels, ``G`` groups, ``S`` parts that a picture is summed in.
Numbers lie channels last. Sums are float32.
"""

import triton
import triton.language as tl


@triton.jit
def settle_kernel(
    x, bias, residual, out, sums, num_places, columns, part, parts, channels,
    block: tl.constexpr, chunk: tl.constexpr,
    has_bias: tl.constexpr, has_residual: tl.constexpr, copies: tl.constexpr,
):  # fmt: skip
    """``x + bias + residual`` ``(B, P, C)``, written ``copies`` times, and its ``sums``.

    Four copies are the picture with both sides doubled; none leaves ``out`` alone. Each channel's
    sums and sums of squares are ``(B, S, 2, C)``. Programs are ``(S * C / chunk, B)``.
    """
    number, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    chunks = channels // chunk
    slot = number // chunks
    channel = (number % chunks) * chunk + tl.arange(0, chunk)
    total = tl.zeros((block, chunk), tl.float32)
    squares = tl.zeros((block, chunk), tl.float32)
    if has_bias:
        added = tl.load(bias + channel).to(tl.float32)
    end = tl.minimum((slot + 1) * part, num_places)
    for first in range(slot * part, end, block):
        place = first + tl.arange(0, block)
        is_in = (place < end)[:, None]
        at = (picture * num_places + place)[:, None] * channels + channel[None, :]
        tile = tl.load(x + at, mask=is_in, other=0.0).to(tl.float32)
        if has_bias:
            tile += added[None, :]
        if has_residual:
            tile += tl.load(residual + at, mask=is_in, other=0.0).to(tl.float32)
        if copies == 1:
            tl.store(out + at, tile.to(out.dtype.element_ty), mask=is_in)
        if copies == 4:
            corner = picture * 4 * num_places + 2 * place + place // columns * 2 * columns
            for copy in tl.static_range(4):
                target = corner + copy // 2 * 2 * columns + copy % 2
                to = target[:, None] * channels + channel[None, :]
                tl.store(out + to, tile.to(out.dtype.element_ty), mask=is_in)
        tile = tl.where(is_in, tile, 0.0)
        total += tile
        squares += tile * tile
    target = sums + (picture * parts + slot) * 2 * channels + channel
    tl.store(target, tl.sum(total, 0))
    tl.store(target + channels, tl.sum(squares, 0))


@triton.jit
def affine_kernel(
    sums, weight, norm_bias, bias, affine, num_places, parts, channels, width, eps,
    padded: tl.constexpr, block: tl.constexpr, has_bias: tl.constexpr,
):  # fmt: skip
    """What normalising does to each channel: gains, then shifts, ``(B, 2, C)``.

    The shift holds ``bias``, which the sums count and the numbers lack. Programs are ``(G, B)``.
    """
    group, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    inside = tl.arange(0, padded)
    channel, there = group * width + inside, inside < width
    total = tl.zeros((block, padded), tl.float32)
    squares = tl.zeros((block, padded), tl.float32)
    for first in range(0, parts, block):
        slot = first + tl.arange(0, block)
        at = sums + (picture * parts + slot)[:, None] * 2 * channels + channel[None, :]
        is_in = (slot < parts)[:, None] & there[None, :]
        total += tl.load(at, mask=is_in, other=0.0)
        squares += tl.load(at + channels, mask=is_in, other=0.0)
    count = num_places * width
    mean = tl.sum(tl.sum(total, 1), 0) / count
    variance = tl.sum(tl.sum(squares, 1), 0) / count - mean * mean
    gain = tl.load(weight + channel, mask=there, other=0.0).to(tl.float32)
    gain *= tl.rsqrt(tl.maximum(variance, 0.0) + eps)
    shift = tl.load(norm_bias + channel, mask=there, other=0.0).to(tl.float32) - mean * gain
    if has_bias:
        shift += gain * tl.load(bias + channel, mask=there, other=0.0).to(tl.float32)
    target = affine + picture * 2 * channels + channel
    tl.store(target, gain, mask=there)
    tl.store(target + channels, shift, mask=there)


@triton.jit
def apply_kernel(
    x, affine, out, num_places, channels,
    block: tl.constexpr, chunk: tl.constexpr, has_silu: tl.constexpr,
):  # fmt: skip
    """``silu(gain x + shift)``, ``(B, P, C)``; programs are ``(P / block * C / chunk, B)``."""
    number, picture = tl.program_id(0), tl.program_id(1).to(tl.int64)
    chunks = channels // chunk
    channel = (number % chunks) * chunk + tl.arange(0, chunk)
    place = number // chunks * block + tl.arange(0, block)
    is_in = (place < num_places)[:, None]
    at = (picture * num_places + place)[:, None] * channels + channel[None, :]
    tile = tl.load(x + at, mask=is_in, other=0.0).to(tl.float32)
    found = affine + picture * 2 * channels + channel
    tile = tile * tl.load(found)[None, :] + tl.load(found + channels)[None, :]
    if has_silu:
        tile = tile * tl.sigmoid(tile)
    tl.store(out + at, tile.to(out.dtype.element_ty), mask=is_in)
