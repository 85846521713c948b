# pyright: basic, reportMissingImports=false, reportOperatorIssue=false, reportIndexIssue=false
"""Triton kernels of a layer in training: sums, norms, rotations and SwiGLU, with gradients.

Each reads its inputs once and does all that lies between two products; arithmetic is float32.
Legend: ``N`` positions, ``H`` heads that are rotated, of queries and then of keys, ``d`` their
width, ``F`` inner width of SwiGLU.
"""

import triton
import triton.language as tl
from torch import Tensor

from unimm.nn.kernel_parts import gated, inverse_root, normalise, rotate_halves

_SUM = (256, 16, 8)
"""Rows and columns that a program of a sum has in hand at once, and its warps."""


@triton.jit
def load_halves(x, starts, at, is_in, half: tl.constexpr):
    """Both halves of heads that begin at ``starts (R, 1)``, float32."""
    places = x + starts + at
    first = tl.load(places, mask=is_in, other=0.0).to(tl.float32)
    return first, tl.load(places + half, mask=is_in, other=0.0).to(tl.float32)


@triton.jit
def load_gains(query_weight, key_weight, is_query, at, half: tl.constexpr):
    """Both halves of each head's norm weights ``(R, d / 2)``: of queries, or of keys."""
    of_query = load_halves(query_weight, 0, at, at < half, half)
    of_key = load_halves(key_weight, 0, at, at < half, half)
    return (
        tl.where(is_query, of_query[0], of_key[0]),
        tl.where(is_query, of_query[1], of_key[1]),
    )


@triton.jit
def rotate_kernel(
    joined, query_weight, key_weight, cosines, sines, rotated, num_rows, joined_stride, eps,
    num_heads: tl.constexpr, num_rotated: tl.constexpr, width: tl.constexpr,
    has_norm: tl.constexpr, block_rows: tl.constexpr, block_half: tl.constexpr,
):  # fmt: skip
    """Normalise and rotate the first heads of ``joined (N, > H d)`` into ``rotated (N, H, d)``.

    A row is a head of a position; angles are ``(N, d)``, both halves alike.
    """
    half: tl.constexpr = width // 2
    row = tl.program_id(0).to(tl.int64) * block_rows + tl.arange(0, block_rows)[:, None]
    at = tl.arange(0, block_half)[None, :]
    is_in = (row < num_rows) & (at < half)
    position, head = row // num_rotated, row % num_rotated
    x1, x2 = load_halves(joined, position * joined_stride + head * width, at, is_in, half)
    if has_norm:
        scale = inverse_root(x1, x2, eps, width)
        g1, g2 = load_gains(query_weight, key_weight, head < num_heads, at, half)
        x1, x2 = x1 * scale * g1, x2 * scale * g2
    cosine = tl.load(cosines + position * width + at, mask=is_in, other=0.0)
    sine = tl.load(sines + position * width + at, mask=is_in, other=0.0)
    target = rotated + row * width + at
    dtype = rotated.dtype.element_ty
    y1, y2 = rotate_halves(x1, x2, cosine, sine)
    tl.store(target, y1.to(dtype), mask=is_in)
    tl.store(target + half, y2.to(dtype), mask=is_in)


@triton.jit
def rotate_gradient_kernel(
    joined, query_weight, key_weight, cosines, sines, found, for_weights,
    num_positions, joined_stride, found_stride, eps,
    num_heads: tl.constexpr, num_rotated: tl.constexpr, width: tl.constexpr,
    has_norm: tl.constexpr, block_heads: tl.constexpr, block_half: tl.constexpr,
):  # fmt: skip
    """Turn gradients of rotated heads into those of the heads before, where they lie in ``found``.

    ``for_weights (programs, 2, d)`` float32 gets what each program adds to the gradients of the
    weights of queries and of keys. A program has all heads of a position in hand, so that it reads
    angles once for them and weights once for all positions.
    """
    half: tl.constexpr = width // 2
    head, at = tl.arange(0, block_heads)[:, None], tl.arange(0, block_half)[None, :]
    is_in = (head < num_rotated) & (at < half)
    is_query = head < num_heads
    if has_norm:
        g1, g2 = load_gains(query_weight, key_weight, is_query, at, half)
        sums1 = tl.zeros((block_heads, block_half), tl.float32)
        sums2 = sums1
    # Positions to come are on their way while a program works on this one.
    for i in tl.range(tl.program_id(0), num_positions, tl.num_programs(0), num_stages=3):
        position = tl.full((1, 1), i, tl.int64)
        target = position * found_stride + head * width
        given1, given2 = load_halves(found, target, at, is_in, half)
        angle = position * width + at
        cosine = tl.load(cosines + angle, mask=at < half, other=0.0)
        sine = tl.load(sines + angle, mask=at < half, other=0.0)
        y1, y2 = rotate_halves(given1, given2, cosine, -sine)
        if has_norm:
            x1, x2 = load_halves(joined, position * joined_stride + head * width, at, is_in, half)
            scale = inverse_root(x1, x2, eps, width)
            x1, x2 = x1 * scale, x2 * scale
            sums1 += y1 * x1
            sums2 += y2 * x2
            y1, y2 = y1 * g1, y2 * g2
            mean = tl.sum(y1 * x1 + y2 * x2, 1, keep_dims=True) / width
            y1, y2 = scale * (y1 - x1 * mean), scale * (y2 - x2 * mean)
        dtype = found.dtype.element_ty
        tl.store(found + target + at, y1.to(dtype), mask=is_in)
        tl.store(found + target + half + at, y2.to(dtype), mask=is_in)
    if has_norm:
        for_weights += tl.program_id(0).to(tl.int64) * 2 * width + at
        store_sums(
            for_weights, tl.where(is_query, sums1, 0.0), tl.where(is_query, sums2, 0.0), half
        )
        for_weights += width
        store_sums(
            for_weights, tl.where(is_query, 0.0, sums1), tl.where(is_query, 0.0, sums2), half
        )


@triton.jit
def store_sums(places, first, second, half: tl.constexpr):
    """Sums over heads ``(R, d / 2)`` of both halves; ``places (1, d / 2)``."""
    is_in = tl.arange(0, first.shape[1])[None, :] < half
    tl.store(places, tl.sum(first, 0, keep_dims=True), mask=is_in)
    tl.store(places + half, tl.sum(second, 0, keep_dims=True), mask=is_in)


@triton.jit
def load_gated(joined, row, at, size):
    """Gates and what they gate of a row of ``(N, 2 F)``, float32."""
    joined += row * 2 * size + at
    gate = tl.load(joined, mask=at < size, other=0.0).to(tl.float32)
    return gate, tl.load(joined + size, mask=at < size, other=0.0).to(tl.float32)


@triton.jit
def swiglu_kernel(joined, hidden, size, block: tl.constexpr):
    """``silu(gate) up`` of ``joined (N, 2 F)``, gates first; programs are ``(N, blocks of F)``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    is_in = at < size
    gate, up = load_gated(joined, row, at, size)
    found = gated(gate, up)
    tl.store(hidden + row * size + at, found.to(hidden.dtype.element_ty), mask=is_in)


@triton.jit
def swiglu_gradient_kernel(joined, gradient, found, size, block: tl.constexpr):
    """Gradients of gate and up, ``found (N, 2 F)``; programs are ``(N, blocks of F)``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    is_in = at < size
    gate, up = load_gated(joined, row, at, size)
    given = tl.load(gradient + row * size + at, mask=is_in, other=0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    for_gate = given * up * share * (1 + gate * (1 - share))
    found += row * 2 * size + at
    dtype = found.dtype.element_ty
    tl.store(found, for_gate.to(dtype), mask=is_in)
    tl.store(found + size, (given * gate * share).to(dtype), mask=is_in)


@triton.jit
def add_norm_kernel(
    x, branch, weight, added, normed, size, eps, block: tl.constexpr
):  # fmt: skip
    """``added = x + branch``, and its RMSNorm; programs are ``(N,)``."""
    row = tl.program_id(0).to(tl.int64) * size
    at = tl.arange(0, block)
    is_in = at < size
    found = tl.load(x + row + at, mask=is_in, other=0.0).to(tl.float32)
    found += tl.load(branch + row + at, mask=is_in, other=0.0).to(tl.float32)
    gain = tl.load(weight + at, mask=is_in, other=0.0).to(tl.float32)
    rounded = found.to(added.dtype.element_ty)
    tl.store(added + row + at, rounded, mask=is_in)
    found = normalise(rounded.to(tl.float32), gain, eps, size)
    tl.store(normed + row + at, found.to(normed.dtype.element_ty), mask=is_in)


@triton.jit
def add_norm_gradient_kernel(
    added, weight, for_added, for_normed, found, for_weights, num_rows, size, eps,
    block_rows: tl.constexpr, block: tl.constexpr, stages: tl.constexpr,
):  # fmt: skip
    """Gradient of both summands, ``found``; each program goes through many rows.

    ``for_weights (programs, size)`` float32 gets what each adds to the gradient of the weights.
    The next rows are on their way while a program works on these.
    """
    at = tl.arange(0, block)
    is_in = at < size
    gain = tl.load(weight + at, mask=is_in, other=0.0).to(tl.float32)
    sums = tl.zeros((block,), tl.float32)
    first, step = tl.program_id(0) * block_rows, tl.num_programs(0) * block_rows
    for start in tl.range(first, num_rows, step, num_stages=stages):
        row = start + tl.arange(0, block_rows)[:, None]
        is_here = is_in & (row < num_rows)
        place = row.to(tl.int64) * size + at
        x = tl.load(added + place, mask=is_here, other=0.0).to(tl.float32)
        given = tl.load(for_normed + place, mask=is_here, other=0.0).to(tl.float32)
        passed = tl.load(for_added + place, mask=is_here, other=0.0).to(tl.float32)
        scale = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / size + eps)
        x *= scale
        sums += tl.sum(given * x, 0)
        given *= gain
        passed += scale * (given - x * (tl.sum(given * x, 1, keep_dims=True) / size))
        tl.store(found + place, passed.to(found.dtype.element_ty), mask=is_here)
    tl.store(for_weights + tl.program_id(0) * size + at, sums, mask=is_in)


@triton.jit
def sum_rows_kernel(
    x, sums, num_rows, size, block_rows: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """``sums (size,)`` of the rows ``x (num_rows, size)``; programs are ``(blocks of size,)``."""
    at = tl.program_id(0) * block + tl.arange(0, block)[None, :]
    found = tl.zeros((block_rows, block), tl.float32)
    for start in range(0, num_rows, block_rows):
        row = start + tl.arange(0, block_rows)[:, None]
        found += tl.load(x + row * size + at, mask=(row < num_rows) & (at < size), other=0.0)
    tl.store(sums + at, tl.sum(found, 0, keep_dims=True), mask=at < size)


def sum_rows(x: Tensor) -> Tensor:
    """Sums over the first axis of what programs found, ``(programs, ...)`` float32, in order.

    PyTorch's sum gives some hundred rows to a handful of programs, or clears a counter first.
    """
    sums = x.new_empty(x.shape[1:])
    size, (block_rows, block, num_warps) = sums.numel(), _SUM
    sum_rows_kernel[(-(-size // block),)](
        x, sums, len(x), size, block_rows=block_rows, block=block, num_warps=num_warps
    )
    return sums
