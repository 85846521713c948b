# pyright: basic, reportMissingImports=false
"""A Triton kernel that draws a token a row: guidance, top-k, top-p and the draw in one pass.

Sorting tens of thousands of logits takes several passes over memory. Here a row stays in the
registers of one program, and the thresholds of top-k and top-p are found by bisection over the bits
of a number's distance from the likeliest, which rise with it.
"""

import triton
import triton.language as tl

_INFINITY = tl.constexpr(0x7F800000)


@triton.jit
def draw_kernel(
    logits, uniform, drawn, num_rows, size, first_scale, second_scale, temperature, top_k, top_p,
    branches: tl.constexpr, has_k: tl.constexpr, has_p: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Draw from ``logits (G B, V)`` with ``uniform (B,)``; programs are ``(B,)``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    is_in = at < size
    mixed = tl.load(logits + row * size + at, mask=is_in, other=0.0).to(tl.float32)
    if branches > 1:
        first = logits + (num_rows + row) * size
        without = tl.load(first + at, mask=is_in, other=0.0).to(tl.float32)
        guided = without + first_scale * (mixed - without)
        if branches > 2:
            first += num_rows * size
            without = tl.load(first + at, mask=is_in, other=0.0).to(tl.float32)
            guided += (second_scale - 1) * (mixed - without)
        mixed = guided
    mixed = tl.where(is_in, mixed, float("-inf"))
    mixed = (mixed - tl.max(mixed, 0)) / temperature
    distance = tl.abs(mixed).to(tl.int32, bitcast=True)
    if has_k:
        low = tl.full((), 0, tl.int32)
        high = tl.full((), _INFINITY, tl.int32)
        for _ in range(31):
            middle = low + (high - low) // 2
            is_enough = tl.sum((distance <= middle).to(tl.int32), 0) >= top_k
            high = tl.where(is_enough, middle, high)
            low = tl.where(is_enough, low, middle + 1)
        is_in = is_in & (distance <= high)
    weights = tl.where(is_in, tl.exp(mixed), 0.0)
    if has_p:
        wanted = top_p * tl.sum(weights, 0)
        low = tl.full((), 0, tl.int32)
        high = tl.full((), _INFINITY, tl.int32)
        for _ in range(31):
            middle = low + (high - low) // 2
            is_enough = tl.sum(tl.where(distance <= middle, weights, 0.0), 0) >= wanted
            high = tl.where(is_enough, middle, high)
            low = tl.where(is_enough, low, middle + 1)
        weights = tl.where(distance <= high, weights, 0.0)
    cumulative = tl.cumsum(weights.to(tl.float64), 0)
    target = tl.load(uniform + row).to(tl.float64) * tl.max(cumulative, 0)
    found = tl.sum((cumulative <= target).to(tl.int32), 0)
    tl.store(drawn + row, tl.minimum(found, size - 1).to(tl.int64))
