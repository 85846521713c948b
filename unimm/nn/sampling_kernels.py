# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""A Triton kernel that draws a token a row: guidance, top-k, top-p and the draw in one pass.

Sorting tens of thousands of logits takes several passes over memory. Here a row stays in the
registers of one program, and the thresholds of top-k and top-p are searched for among the bits of a
number's distance from the likeliest, which rise with it. Legend: ``n`` tokens to be drawn in turn.
"""

import triton
import triton.language as tl

from unimm.nn.kernel_parts import take_over

_INFINITY = tl.constexpr(0x7F800000)


@triton.jit
def _join(
    highest, lowest, count, total, squares,
    other_highest, other_lowest, other_count, other_total, other_squares,
):  # fmt: skip
    """Extremes and sums of two stretches of a row, put together."""
    return (
        tl.maximum(highest, other_highest),
        tl.minimum(lowest, other_lowest),
        count + other_count,
        total + other_total,
        squares + other_squares,
    )


@triton.jit
def find_reach(distance, weights, wanted, unit, high, within, guess, step):
    """The least distance within which weights add up to ``wanted``; ``high`` if none does.

    Bounds are narrowed by guesses, by interpolation, by the middle of their bits, and, every now
    and then or where little is left between them, by the next distance that there is. The middle
    of the bits alone would end it. A round is a sum over the whole row: five or so with a good
    first guess, else a dozen, for the 31 of a search bit by bit.

    Args:
        distance: bits of numbers that are not negative; what is not finite counts as absent.
        weights: of the same shape.
        wanted: their sum.
        unit: weight of one token somewhere near the result.
        high: bits of a distance that the result does not exceed.
        within: sum of all weights up to there.
        guess: a distance, where to look first.
        step: how much farther for one more of weight; 0 for no guess.
    """
    low, below = tl.full((), 0, tl.int32), tl.full((), 0.0, tl.float32)
    # Sums, because what is a constant here could not change in a loop.
    turn, guess, step = tl.full((), 0, tl.int32), below + guess, below + step
    while (low < high) & (within > wanted):
        if (turn % 8 == 7) | (within - below <= 6 * unit):
            low = tl.min(tl.where(distance >= low, distance, _INFINITY), 0)
            middle = low
        else:
            near, far = low.to(tl.float32, bitcast=True), high.to(tl.float32, bitcast=True)
            share = (wanted - 0.5 * unit - below) / (within - below)
            first = tl.where(step > 0, guess, near + (far - near) * 0.5)
            look = tl.where(turn < 3, first, near + (far - near) * share)
            look = tl.maximum(look, 0.0).to(tl.int32, bitcast=True)
            look = tl.where((turn > 3) & (turn % 5 == 0), low + (high - low) // 2, look)
            middle = tl.maximum(low, tl.minimum(look, high - 1))
        found = tl.sum(tl.where(distance <= middle, weights, 0.0), 0)
        # A little too far, so that bounds close in from both sides.
        guess += 1.2 * step * (wanted - 0.5 * unit - found)
        is_enough = found >= wanted
        high, within = tl.where(is_enough, middle, high), tl.where(is_enough, found, within)
        low, below = tl.where(is_enough, low, middle + 1), tl.where(is_enough, below, found)
        turn += 1
    return high


@triton.jit
def draw_kernel(
    logits, noise, at, drawn, kept, num_rows, size, num_noise, num_kept,
    first_scale, second_scale, temperature, top_k, top_p, quantile, spacing,
    branches: tl.constexpr, has_k: tl.constexpr, has_p: tl.constexpr, is_kept: tl.constexpr,
    block: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Draw from ``logits (G B, V)`` with ``noise (B,)``; programs are ``(B,)``.

    With ``is_kept``, ``noise`` and ``kept`` are ``(B, n)``, the token of place ``at`` is drawn.
    ``quantile`` and ``spacing`` say where to look first for the ``top_k`` likeliest: where those of
    a normal distribution end, and how far tokens lie apart there, in standard deviations.
    """
    row = tl.program_id(0).to(tl.int64)
    token = tl.arange(0, block)
    is_in = token < size
    take_over(has_pdl)
    place = row * 0
    if is_kept:
        place += tl.load(at)
    uniform = tl.load(noise + row * num_noise + place)
    mixed = tl.load(logits + row * size + token, mask=is_in, other=0.0).to(tl.float32)
    if branches > 1:
        first = logits + (num_rows + row) * size
        without = tl.load(first + token, mask=is_in, other=0.0).to(tl.float32)
        guided = without + first_scale * (mixed - without)
        if branches > 2:
            first += num_rows * size
            without = tl.load(first + token, mask=is_in, other=0.0).to(tl.float32)
            guided += (second_scale - 1) * (mixed - without)
        mixed = guided
    mixed = tl.where(is_in, mixed, float("-inf"))
    is_there = mixed > float("-inf")
    shown, ones = tl.where(is_there, mixed, 0.0), tl.where(is_there, 1.0, 0.0)
    lowest = tl.where(is_there, mixed, float("inf"))
    highest, lowest, count, total, squares = tl.reduce(
        (mixed, lowest, ones, shown, shown * shown), 0, _join
    )
    mixed = (mixed - highest) / temperature
    distance = tl.abs(mixed).to(tl.int32, bitcast=True)
    # One more, should the same quotient be rounded otherwise here.
    reach = tl.abs((lowest - highest) / temperature).to(tl.int32, bitcast=True) + 1
    reach = tl.minimum(reach, _INFINITY - 1)
    if has_k:
        mean = total / count
        deviation = tl.sqrt(tl.maximum(squares / count - mean * mean, 0.0)) / temperature
        guess = (highest - mean) / temperature + quantile * deviation
        reach = find_reach(distance, 1.0, top_k, 1.0, reach, count, guess, spacing * deviation)
        is_in = is_in & (distance <= reach)
    weights = tl.where(is_in, tl.exp(mixed), 0.0)
    if has_p:
        whole = tl.sum(weights, 0)
        wanted = top_p * whole
        reach = find_reach(distance, weights, wanted, wanted / 4096, reach, whole, 0.0, 0.0)
        weights = tl.where(distance <= reach, weights, 0.0)
    cumulative = tl.cumsum(weights.to(tl.float64), 0)
    most = tl.max(cumulative, 0)
    # The last token of a weight is the last that rounding may lead to.
    is_passed = (cumulative <= uniform.to(tl.float64) * most) & (cumulative < most)
    found = tl.sum(is_passed.to(tl.int32), 0).to(tl.int64)
    tl.store(drawn + row, found)
    if is_kept:
        tl.store(kept + row * num_kept + place, found)
