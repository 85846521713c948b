# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
"""Triton kernels of a cached step of the trunk, between its products.

Drawing waits for memory and for the start of kernels, so each of these reads its inputs once and
does all that follows. Sums are float32. Legend: ``T`` positions of a step, ``R`` rows, ``H`` query
heads, ``W`` width of a head.
"""

import triton
import triton.language as tl

from unimm.nn.kernel_parts import gated, inverse_root, normalise, rotate_halves, take_over


@triton.jit
def angles_kernel(positions, frequencies, cosines, sines, half: tl.constexpr, block: tl.constexpr):
    """Cosines and sines ``(T, W / 2)`` of positions ``(T, 3)``: frequency f turns by axis f % 3."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    is_in = at < half
    place = tl.load(positions + row * 3 + at % 3, mask=is_in, other=0).to(tl.float32)
    angle = place * tl.load(frequencies + at, mask=is_in, other=0.0)
    tl.store(cosines + row * half + at, tl.cos(angle), mask=is_in)
    tl.store(sines + row * half + at, tl.sin(angle), mask=is_in)


@triton.jit
def load_head(x, at, width: tl.constexpr):
    """A head's numbers ``at (n, W)``, and for each that of the other half; float32."""
    half: tl.constexpr = width // 2
    run: tl.constexpr = min(half, 8)  # that lie together, which the compiler does not see
    other = tl.multiple_of(tl.max_contiguous(at ^ half, (1, run)), (1, run))
    return tl.load(x + at).to(tl.float32), tl.load(x + other).to(tl.float32)


@triton.jit
def load_turn(cosines, sines, place, at, width: tl.constexpr):
    """Cosines of a head's numbers and the sines that weigh the other half."""
    half: tl.constexpr = width // 2
    angle = place * half + at % half  # both halves turn alike
    sine = tl.load(sines + angle)
    return tl.load(cosines + angle), tl.where(at < half, -sine, sine)


@triton.jit
def rotate(head, gain, turn, eps, width: tl.constexpr, has_norm: tl.constexpr):
    """Rotate heads ``(n, W)``: float32, and what is left to multiply them with, ``(n, 1)``."""
    x, other = head
    if has_norm:
        scale = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / width + eps)
        x, other = x * gain[0], other * gain[1]
    else:
        scale = tl.full((x.shape[0], 1), 1.0, tl.float32)
    return x * turn[0] + other * turn[1], scale


@triton.jit
def turn_halves(
    x, weight, cosines, sines, eps, width: tl.constexpr, has_norm: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """Both halves ``(n, W / 2)`` of heads at ``x``, normalised and rotated; angles lie likewise."""
    half: tl.constexpr = width // 2
    at = tl.arange(0, half)[None, :]
    if has_norm:  # what no step changes is read while the kernel before this one ends
        gain1, gain2 = tl.load(weight + at).to(tl.float32), tl.load(weight + half + at)
    take_over(has_pdl)
    x1, x2 = tl.load(x + at).to(tl.float32), tl.load(x + half + at).to(tl.float32)
    if has_norm:
        scale = inverse_root(x1, x2, eps, width)
        x1, x2 = x1 * scale * gain1, x2 * scale * gain2.to(tl.float32)
    return rotate_halves(x1, x2, tl.load(cosines + at), tl.load(sines + at))


@triton.jit
def store_halves(target, halves, width: tl.constexpr):
    """Write both halves of heads."""
    at = target + tl.arange(0, width // 2)[None, :]
    tl.store(at, halves[0].to(target.dtype.element_ty))
    tl.store(at + width // 2, halves[1].to(target.dtype.element_ty))


@triton.jit
def store_rotated_kernel(
    query, key, value, query_weight, key_weight, cosines, sines, lengths,
    keys, values, out, first_row, query_stride, key_stride, value_stride,
    row_stride, head_stride, eps, num_new, num_places, query_programs,
    num_heads: tl.constexpr, num_kv_heads: tl.constexpr, width: tl.constexpr,
    has_norm: tl.constexpr, block: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise and rotate queries and keys; write keys and values where the cache goes on.

    A program has ``block`` heads of neighbouring positions: of queries, ``(T, H, W)``, the first
    ``query_programs``, the others of keys and values. The last of each does its last head again
    and again.
    """
    program, one = tl.program_id(0).to(tl.int64), tl.arange(0, block)[:, None]
    half: tl.constexpr = width // 2
    if program < query_programs:
        index = tl.minimum(program * block + one, num_places * num_heads - 1)
        place = index // num_heads
        given = query + place * query_stride + index % num_heads * width
        turned = turn_halves(
            given, query_weight, cosines + place * half, sines + place * half, eps, width,
            has_norm, has_pdl,
        )  # fmt: skip
        store_halves(out + index * width, turned, width)
    else:
        index = (program - query_programs) * block + one
        index = tl.minimum(index, num_places * num_kv_heads - 1)
        place, head = index // num_kv_heads, index % num_kv_heads
        turned = turn_halves(
            key + place * key_stride + head * width, key_weight, cosines + place * half,
            sines + place * half, eps, width, has_norm, has_pdl,
        )  # fmt: skip
        row = place // num_new
        slot = tl.load(lengths + row) + place % num_new
        target = (first_row + row) * row_stride + head * head_stride + slot * width
        store_halves(keys + target, turned, width)
        shown = value + place * value_stride + head * width + tl.arange(0, half)[None, :]
        store_halves(values + target, (tl.load(shown), tl.load(shown + half)), width)


@triton.jit
def load_slots(
    cached, slots, length, at, width: tl.constexpr, lanes: tl.constexpr, turns: tl.constexpr
):
    """A head's keys or values: ``turns`` tiles, the slots of each ``lanes`` behind the last's.

    Zero behind the row's end.
    """
    tiles = ()
    for i in tl.static_range(turns):
        here = slots + i * lanes
        places = cached + here.to(tl.int64) * width + at
        tiles += (tl.load(places, mask=here < length, other=0.0, eviction_policy="evict_first"),)
    return tiles


@triton.jit
def attend_one_kernel(
    query, key, value, query_weight, key_weight, cosines, sines, lengths,
    keys, values, out, first_row, query_stride, key_stride, value_stride,
    row_stride, head_stride, eps, scale,
    num_heads: tl.constexpr, group: tl.constexpr, width: tl.constexpr,
    has_norm: tl.constexpr, lanes: tl.constexpr, turns: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """One new position a row: rotate, append to the cache, attend to all that the row holds.

    Programs are ``(R, H)``. The new key and value are in hand: nobody waits for their writing.
    Softmax is taken tile by tile (Milakov and Gimelshein, 2018), by each of ``lanes`` for itself:
    lanes are brought together once, behind the last tile. Every lane rotates the new heads anew:
    no warp waits for another before that.
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    kv_head = head // group
    at, lane = tl.arange(0, width)[None, :], tl.arange(0, lanes)[:, None]
    of_lane = lane * 0 + at
    length = tl.load(lengths + row)
    start = (first_row + row) * row_stride + kv_head * head_stride
    # What earlier steps wrote is there before the new position is.
    slots = lane
    key_tiles = load_slots(keys + start, slots, length, at, width, lanes, turns)
    value_tiles = load_slots(values + start, slots, length, at, width, lanes, turns)
    query_gain = load_head(query_weight, of_lane, width)
    key_gain = load_head(key_weight, of_lane, width)
    take_over(has_pdl)
    given_query = load_head(query + row * query_stride + head * width, of_lane, width)
    given_key = load_head(key + row * key_stride + kv_head * width, of_lane, width)
    new_value = tl.load(value + row * value_stride + kv_head * width + of_lane)
    turn = load_turn(cosines, sines, row, at, width)
    rotated, key_norm = rotate(given_key, key_gain, turn, eps, width, has_norm)
    new_key = (rotated * key_norm).to(keys.dtype.element_ty)
    rotated, query_norm = rotate(given_query, query_gain, turn, eps, width, has_norm)
    is_first, factor = lane == 0, query_norm * scale
    if head % group == 0:
        target = start + length * width + of_lane
        tl.store(keys + target, new_key, mask=is_first)
        tl.store(values + target, new_value, mask=is_first)
    # The first lane has the new position; that one's score is a bound which all may begin with.
    most = tl.sum(rotated * new_key.to(tl.float32), 1, keep_dims=True) * factor
    total = tl.where(is_first, 1.0, 0.0)
    sums = tl.where(is_first, new_value.to(tl.float32), 0.0)
    for _ in range(0, length, turns * lanes):
        next_slots = slots + turns * lanes
        next_keys = load_slots(keys + start, next_slots, length, at, width, lanes, turns)
        next_values = load_slots(values + start, next_slots, length, at, width, lanes, turns)
        scores, higher = (), most
        for i in tl.static_range(turns):
            score = tl.sum(key_tiles[i].to(tl.float32) * rotated, 1, keep_dims=True) * factor
            scores += (tl.where(slots + i * lanes < length, score, float("-inf")),)
            higher = tl.maximum(higher, scores[i])
        shrink = tl.exp(most - higher)
        total, sums = total * shrink, sums * shrink
        for i in tl.static_range(turns):
            weight = tl.exp(scores[i] - higher)
            total += weight
            sums += weight * value_tiles[i].to(tl.float32)
        most, slots, key_tiles, value_tiles = higher, next_slots, next_keys, next_values
    weights = tl.exp(most - tl.max(most, 0, keep_dims=True))
    found = tl.sum(sums * weights, 0, keep_dims=True) / tl.sum(total * weights, 0, keep_dims=True)
    tl.store(out + (row * num_heads + head) * width + at, found.to(out.dtype.element_ty))


@triton.jit
def norm_kernel(
    x, weight, out, eps, width: tl.constexpr, block: tl.constexpr, has_pdl: tl.constexpr
):
    """RMSNorm of rows; programs are ``(T,)``."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    is_in = column < width
    gain = tl.load(weight + column, mask=is_in, other=0.0).to(tl.float32)
    take_over(has_pdl)
    given = tl.load(x + row * width + column, mask=is_in, other=0.0).to(tl.float32)
    found = normalise(given, gain, eps, width).to(out.dtype.element_ty)
    tl.store(out + row * width + column, found, mask=is_in)


@triton.jit
def gated_kernel(gate, up, out, num_outputs, gate_stride, up_stride, block: tl.constexpr):
    """``silu(gate) * up``; programs are ``(T, blocks of outputs)``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    is_in = at < num_outputs
    left = tl.load(gate + row * gate_stride + at, mask=is_in).to(tl.float32)
    right = tl.load(up + row * up_stride + at, mask=is_in).to(tl.float32)
    found = gated(left, right).to(out.dtype.element_ty)
    tl.store(out + row * num_outputs + at, found, mask=is_in)
