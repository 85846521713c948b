# pyright: basic, reportMissingImports=false
"""Triton kernels of a cached step of the trunk: small products, and what lies between large ones.

Drawing waits for memory and for the start of kernels, so each of these reads its inputs once and
does all that follows. Sums are float32. Legend: ``T`` positions of a step, ``R`` rows, ``H`` query
heads, ``W`` width of a head.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def rotate_head(
    x, x_weight, cosines, sines, first, half: tl.constexpr, eps,
    has_norm: tl.constexpr, dtype: tl.constexpr,
):  # fmt: skip
    """Load a head of ``W`` numbers, normalise, rotate: its two halves, float32."""
    at = tl.arange(0, half)
    low = tl.load(x + first + at).to(tl.float32)
    high = tl.load(x + first + half + at).to(tl.float32)
    if has_norm:
        squares = tl.sum(low * low) + tl.sum(high * high)
        scale = tl.rsqrt(squares / (2 * half) + eps)
        low = low * scale * tl.load(x_weight + at).to(tl.float32)
        high = high * scale * tl.load(x_weight + half + at).to(tl.float32)
        low, high = low.to(dtype).to(tl.float32), high.to(dtype).to(tl.float32)
    cosine, sine = tl.load(cosines + at), tl.load(sines + at)  # both halves turn alike
    return (low * cosine - high * sine).to(dtype), (high * cosine + low * sine).to(dtype)


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
def store_rotated_kernel(
    query, key, value, query_weight, key_weight, cosines, sines, lengths,
    keys, values, out, num_new, first_row, query_stride, key_stride, value_stride,
    row_stride, head_stride, eps,
    num_heads: tl.constexpr, num_kv_heads: tl.constexpr, half: tl.constexpr,
    has_norm: tl.constexpr,
):  # fmt: skip
    """Normalise and rotate queries and keys; write keys and values where the cache goes on.

    Programs are ``(T, H + H_kv)``: a query head ``(R, H, n, W)``, or a key head with its values.
    """
    place, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, new = place // num_new, place % num_new
    at = tl.arange(0, half)
    turn, turned = cosines + place * half, sines + place * half
    dtype = out.dtype.element_ty
    if head < num_heads:
        low, high = rotate_head(
            query, query_weight, turn, turned, place * query_stride + head * 2 * half,
            half, eps, has_norm, dtype,
        )  # fmt: skip
        rotated = out + ((row * num_heads + head) * num_new + new) * 2 * half
        tl.store(rotated + at, low)
        tl.store(rotated + half + at, high)
    else:
        kv_head = head - num_heads
        key_low, key_high = rotate_head(
            key, key_weight, turn, turned, place * key_stride + kv_head * 2 * half,
            half, eps, has_norm, dtype,
        )  # fmt: skip
        slot = tl.load(lengths + row) + new
        target = (first_row + row) * row_stride + kv_head * head_stride + slot * 2 * half
        tl.store(keys + target + at, key_low)
        tl.store(keys + target + half + at, key_high)
        given = value + place * value_stride + kv_head * 2 * half
        tl.store(values + target + at, tl.load(given + at))
        tl.store(values + target + half + at, tl.load(given + half + at))


@triton.jit
def load_slots(cached, slots, length, at, half: tl.constexpr):
    """Both halves of a head's keys or values at ``slots``, zero behind the row's end."""
    places = cached + slots.to(tl.int64)[:, None] * 2 * half + at[None, :]
    is_in = (slots < length)[:, None]
    return tl.load(places, mask=is_in, other=0.0), tl.load(places + half, mask=is_in, other=0.0)


@triton.jit
def take_over(has_pdl: tl.constexpr):
    """Let the next kernel begin to read its weights; wait for what the one before wrote."""
    if has_pdl:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def attend_one_kernel(
    query, key, value, query_weight, key_weight, cosines, sines, lengths,
    keys, values, out, first_row, query_stride, key_stride, value_stride,
    row_stride, head_stride, eps, scale,
    num_heads: tl.constexpr, group: tl.constexpr, half: tl.constexpr,
    has_norm: tl.constexpr, block: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """One new position a row: rotate, append to the cache, attend to all that the row holds.

    Programs are ``(R, H)``. The new key and value are in hand: nobody waits for their writing.
    Softmax is taken block by block (Milakov and Gimelshein, 2018).
    """
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    kv_head = head // group
    at, slots = tl.arange(0, half), tl.arange(0, block)
    length = tl.load(lengths + row)
    start = (first_row + row) * row_stride + kv_head * head_stride
    # What earlier steps wrote is there before the new position is.
    key_tile, key_tile_high = load_slots(keys + start, slots, length, at, half)
    value_tile, value_tile_high = load_slots(values + start, slots, length, at, half)
    take_over(has_pdl)
    turn, turned = cosines + row * half, sines + row * half
    dtype = keys.dtype.element_ty
    low, high = rotate_head(
        query, query_weight, turn, turned, row * query_stride + head * 2 * half,
        half, eps, has_norm, dtype,
    )  # fmt: skip
    key_low, key_high = rotate_head(
        key, key_weight, turn, turned, row * key_stride + kv_head * 2 * half,
        half, eps, has_norm, dtype,
    )  # fmt: skip
    given = value + row * value_stride + kv_head * 2 * half
    value_low, value_high = tl.load(given + at), tl.load(given + half + at)
    if head % group == 0:
        target = start + length * 2 * half
        tl.store(keys + target + at, key_low)
        tl.store(keys + target + half + at, key_high)
        tl.store(values + target + at, value_low)
        tl.store(values + target + half + at, value_high)
    low, high = low.to(tl.float32) * scale, high.to(tl.float32) * scale
    most = tl.sum(low * key_low.to(tl.float32)) + tl.sum(high * key_high.to(tl.float32))
    total = tl.full((), 1.0, tl.float32)
    sum_low, sum_high = value_low.to(tl.float32), value_high.to(tl.float32)
    for _ in range(0, length, block):
        scores = tl.sum(key_tile.to(tl.float32) * low[None, :], 1)
        scores += tl.sum(key_tile_high.to(tl.float32) * high[None, :], 1)
        scores = tl.where(slots < length, scores, float("-inf"))
        higher = tl.maximum(most, tl.max(scores, 0))
        shrink = tl.exp(most - higher)
        weights = tl.exp(scores - higher)
        total = total * shrink + tl.sum(weights, 0)
        found = tl.sum(weights[:, None] * value_tile.to(tl.float32), 0)
        found_high = tl.sum(weights[:, None] * value_tile_high.to(tl.float32), 0)
        sum_low, sum_high = sum_low * shrink + found, sum_high * shrink + found_high
        most = higher
        slots += block
        key_tile, key_tile_high = load_slots(keys + start, slots, length, at, half)
        value_tile, value_tile_high = load_slots(values + start, slots, length, at, half)
    end = out + (row * num_heads + head) * 2 * half
    tl.store(end + at, (sum_low / total).to(out.dtype.element_ty))
    tl.store(end + half + at, (sum_high / total).to(out.dtype.element_ty))


@triton.jit
def load_tile(weight, outputs, at, num_in):
    """Rows ``outputs`` of a matrix, which is read once and then no more, at columns ``at``."""
    places = weight + outputs.to(tl.int64)[:, None] * num_in + at[None, :]
    is_in = (at < num_in)[None, :]
    return tl.load(places, mask=is_in, other=0.0, eviction_policy="evict_first")


@triton.jit
def load_rows(x, row, at, num_in, num_rows):
    """A few rows at columns ``at``, float32."""
    is_in = (row < num_rows)[:, None] & (at < num_in)[None, :]
    return tl.load(x + row[:, None] * num_in + at[None, :], mask=is_in, other=0.0).to(tl.float32)


@triton.jit
def dot_rows(tile, given):
    """``(rows, outputs)``: products of rows with those of a tile."""
    return tl.sum(tile.to(tl.float32)[None, :, :] * given[:, None, :], 2)


@triton.jit
def project_kernel(
    x, x_weight, query_weight, key_weight, value_weight, out, num_in, num_query, num_key, eps,
    num_rows, padded: tl.constexpr, block_out: tl.constexpr, block_in: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise a few rows and multiply them with three matrices: queries, keys, values."""
    start = tl.program_id(0) * block_out
    before_values = num_query + num_key
    is_value, is_query = start >= before_values, start < num_query
    weight = tl.where(is_query, query_weight, tl.where(is_value, value_weight, key_weight))
    skipped = tl.where(is_query, 0, tl.where(is_value, before_values, num_query))
    outputs = start + tl.arange(0, block_out)
    row, at = tl.arange(0, padded), tl.arange(0, block_in)
    tile = load_tile(weight, outputs - skipped, at, num_in)
    take_over(has_pdl)
    sums = tl.zeros((padded, block_out), tl.float32)
    squares = tl.zeros((padded,), tl.float32)
    for _ in range(0, num_in, block_in):
        given = load_rows(x, row, at, num_in, num_rows)
        squares += tl.sum(given * given, 1)
        gain = tl.load(x_weight + at, mask=at < num_in, other=0.0).to(tl.float32)
        sums += dot_rows(tile, given * gain[None, :])
        at += block_in
        tile = load_tile(weight, outputs - skipped, at, num_in)
    found = sums * tl.rsqrt(squares / num_in + eps)[:, None]
    target = out + row[:, None] * (before_values + num_key) + outputs[None, :]
    tl.store(target, found.to(out.dtype.element_ty), mask=(row < num_rows)[:, None])


@triton.jit
def gate_kernel(
    x, x_weight, gate_weight, up_weight, out, num_in, num_outputs, eps,
    num_rows, padded: tl.constexpr, block_out: tl.constexpr, block_in: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise a few rows; the two matrices of SwiGLU and their product."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    row, at = tl.arange(0, padded), tl.arange(0, block_in)
    gate_tile = load_tile(gate_weight, outputs, at, num_in)
    up_tile = load_tile(up_weight, outputs, at, num_in)
    take_over(has_pdl)
    gate = tl.zeros((padded, block_out), tl.float32)
    up = tl.zeros((padded, block_out), tl.float32)
    squares = tl.zeros((padded,), tl.float32)
    for _ in range(0, num_in, block_in):
        given = load_rows(x, row, at, num_in, num_rows)
        squares += tl.sum(given * given, 1)
        gain = tl.load(x_weight + at, mask=at < num_in, other=0.0).to(tl.float32)
        given = given * gain[None, :]
        gate += dot_rows(gate_tile, given)
        up += dot_rows(up_tile, given)
        at += block_in
        gate_tile = load_tile(gate_weight, outputs, at, num_in)
        up_tile = load_tile(up_weight, outputs, at, num_in)
    scale = tl.rsqrt(squares / num_in + eps)[:, None]
    gate, up = gate * scale, up * scale
    target = out + row[:, None] * num_outputs + outputs[None, :]
    found = gate * tl.sigmoid(gate) * up
    tl.store(target, found.to(out.dtype.element_ty), mask=(row < num_rows)[:, None])


@triton.jit
def add_product_kernel(
    x, hidden, weight, out, num_in, num_outputs,
    num_rows, padded: tl.constexpr, block_out: tl.constexpr, block_in: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """Add a product of a few rows with a matrix to the stream."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    row, at = tl.arange(0, padded), tl.arange(0, block_in)
    tile = load_tile(weight, outputs, at, num_in)
    take_over(has_pdl)
    sums = tl.zeros((padded, block_out), tl.float32)
    for _ in range(0, num_in, block_in):
        sums += dot_rows(tile, load_rows(hidden, row, at, num_in, num_rows))
        at += block_in
        tile = load_tile(weight, outputs, at, num_in)
    place = row[:, None] * num_outputs + outputs[None, :]
    is_in = (row < num_rows)[:, None]
    found = sums + tl.load(x + place, mask=is_in, other=0.0).to(tl.float32)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=is_in)


@triton.jit
def gated_kernel(gate, up, out, count, block: tl.constexpr):
    """``silu(gate) * up``."""
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    is_in = at < count
    left = tl.load(gate + at, mask=is_in).to(tl.float32)
    right = tl.load(up + at, mask=is_in).to(tl.float32)
    tl.store(out + at, (left * tl.sigmoid(left) * right).to(out.dtype.element_ty), mask=is_in)
