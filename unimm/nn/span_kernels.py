# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
"""Triton kernels of attention under the one rule: forward, and gradients of queries and of keys.

Softmax is taken tile by tile (Milakov and Gimelshein, 2018; Dao et al., 2022) with powers of two;
sums are float32. Each program owns a tile of queries or of keys and adds up all that it sees in a
fixed order, so results repeat to the bit. Tiles that are seen whole come first, without a mask.
Legend: ``B`` rows, ``H`` query heads, ``n`` positions of a row, ``T`` tiles of a row.
"""

import triton
import triton.language as tl

_LOWEST = tl.constexpr(-1e30)  # finite, so that nothing seen is not infinity minus infinity


@triton.jit
def load_rows(x, places, stride, width: tl.constexpr, block_width: tl.constexpr):
    """Positions of one head ``(places, block_width)``, zeros beyond its width."""
    at = tl.arange(0, block_width)[None, :]
    if width == block_width:
        found = tl.load(x + places[:, None] * stride + at)
    else:
        found = tl.load(x + places[:, None] * stride + at, mask=at < width, other=0.0)
    return found


@triton.jit
def store_rows(out, values, head, places, length, stride, width: tl.constexpr):
    """Write positions of one head of a row, whose heads follow each other."""
    at = tl.arange(0, values.shape[1])[None, :]
    out += head * width + places[:, None] * stride + at
    is_in = (places[:, None] < length) & (at < width)
    tl.store(out, values.to(out.dtype.element_ty), mask=is_in)


@triton.jit
def load_range(ranges, row, tile):
    """Where a tile's list begins, how many of it are seen whole, and how many at all."""
    ranges += (row * tl.num_programs(0) + tile) * 3
    return tl.load(ranges), tl.load(ranges + 1), tl.load(ranges + 2)


@triton.jit
def load_pairs(pairs, places, is_in):
    """Two columns ``(places,)`` of ``(n, 2)``, zeros outside.

    Triton lets every thread load for itself what is less than a number a thread: one load of pairs
    is not, and takes a fraction of the instructions and registers of two.
    """
    found = tl.load(
        pairs + places[:, None] * 2 + tl.arange(0, 2)[None, :], mask=is_in[:, None], other=0
    )
    return tl.split(found)


@triton.jit
def find_keys(rule, i, num_keys: tl.constexpr, has_gaps: tl.constexpr):
    """The i-th tile of keys that a tile of queries sees."""
    _, _, _, starts, first = rule
    start = tl.load(starts + i) if has_gaps else first + i * num_keys
    return start + tl.arange(0, num_keys)


@triton.jit
def find_seen(rule, keys, length, has_gaps: tl.constexpr):
    """Who sees whom, ``(queries, keys)``, of ``keys`` that may lie behind the row's end."""
    queries, document_start, key_spans, _, _ = rule
    at = queries[:, None]
    if has_gaps:
        seen_from, seen_until = load_pairs(key_spans, keys, keys < length)
        is_seen = (at >= seen_from[None, :]) & (at < seen_until[None, :])
    else:
        is_seen = (keys[None, :] >= document_start[:, None]) & (keys[None, :] <= at)
    return is_seen


@triton.jit
def attend_tiles(
    carry, query, key, value, rule, begin, end, length,
    key_stride, value_stride, scale,
    width: tl.constexpr, num_keys: tl.constexpr, has_gaps: tl.constexpr, is_masked: tl.constexpr,
):  # fmt: skip
    """Add the tiles ``begin`` to ``end`` of keys to a tile of queries."""
    block_width: tl.constexpr = query.shape[1]
    sums, total, highest = carry
    for i in range(begin, end):
        keys = find_keys(rule, i, num_keys, has_gaps)
        places = keys
        if is_masked:
            places = tl.minimum(keys, length - 1)
        key_tile = load_rows(key, places, key_stride, width, block_width)
        scores = tl.dot(query, tl.trans(key_tile), input_precision="ieee")
        if is_masked:
            is_seen = find_seen(rule, keys, length, has_gaps)
            scores = tl.where(is_seen, scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        value_tile = load_rows(value, places, value_stride, width, block_width)
        sums = sums * shrink[:, None]
        sums = tl.dot(weights.to(value_tile.dtype), value_tile, sums, input_precision="ieee")
        highest = higher
    return sums, total, highest


@triton.jit(do_not_specialize=["length", "longest_list"])
def attend_kernel(
    query, key, value, out, log_sums, document_starts, key_spans, ranges, starts,
    query_row, query_head, query_stride, key_row, key_head, key_stride,
    value_row, value_head, value_stride, length, longest_list, scale,
    group: tl.constexpr, width: tl.constexpr, block_width: tl.constexpr,
    num_queries: tl.constexpr, num_keys: tl.constexpr,
    has_gaps: tl.constexpr, is_split: tl.constexpr,
):  # fmt: skip
    """``out (B, n, H, width)`` and log2 of the sum of powers ``(B, H, n)``; programs (T, H, B)."""
    tile = tl.num_programs(0) - 1 - tl.program_id(0)  # the longest first
    head, row = tl.program_id(1), tl.program_id(2)
    num_heads = tl.num_programs(1)
    first, num_full, num_seen = load_range(ranges, row, tile)
    starts += (row * tl.num_programs(0) + tile) * longest_list
    key_spans += row * length * 2
    queries = tile * num_queries + tl.arange(0, num_queries)
    places = tl.minimum(queries, length - 1)
    query += row.to(tl.int64) * query_row + head * query_head
    key += row.to(tl.int64) * key_row + (head // group) * key_head
    value += row.to(tl.int64) * value_row + (head // group) * value_head
    query_tile = load_rows(query, places, query_stride, width, block_width)
    document_start = tl.load(document_starts + row * length + places)
    rule = (queries, document_start, key_spans, starts, first)
    sums = tl.zeros((num_queries, block_width), tl.float32)
    total = tl.zeros((num_queries,), tl.float32)
    carry = (sums, total, total + _LOWEST)
    if is_split:
        carry = attend_tiles(
            carry, query_tile, key, value, rule, 0, num_full,
            length, key_stride, value_stride, scale, width, num_keys, has_gaps, False,
        )  # fmt: skip
    else:
        num_full = 0
    sums, total, highest = attend_tiles(
        carry, query_tile, key, value, rule, num_full, num_seen,
        length, key_stride, value_stride, scale, width, num_keys, has_gaps, True,
    )  # fmt: skip
    # Who sees nothing gets zeros, and weights of zero in the backward.
    is_empty = total == 0.0
    total = tl.where(is_empty, 1.0, total)
    log_sum = tl.where(is_empty, float("inf"), highest + tl.log2(total))
    log_sums += (row * num_heads + head).to(tl.int64) * length
    tl.store(log_sums + queries, log_sum, mask=queries < length)
    out += row.to(tl.int64) * length * num_heads * width
    store_rows(out, sums / total[:, None], head, queries, length, num_heads * width, width)


@triton.jit
def query_gradient_tiles(
    gradient, query, key, value, out_gradient, log_sum, delta, rule,
    begin, end, length, key_stride, value_stride, scale,
    width: tl.constexpr, num_keys: tl.constexpr, has_gaps: tl.constexpr, is_masked: tl.constexpr,
):  # fmt: skip
    """Add what the tiles ``begin`` to ``end`` of keys give to a tile of queries."""
    block_width: tl.constexpr = query.shape[1]
    for i in range(begin, end):
        keys = find_keys(rule, i, num_keys, has_gaps)
        places = keys
        if is_masked:
            places = tl.minimum(keys, length - 1)
        key_tile = load_rows(key, places, key_stride, width, block_width)
        value_tile = load_rows(value, places, value_stride, width, block_width)
        scores = tl.dot(query, tl.trans(key_tile), input_precision="ieee")
        weights = tl.exp2(scores * scale - log_sum[:, None])
        if is_masked:
            is_seen = find_seen(rule, keys, length, has_gaps)
            weights = tl.where(is_seen, weights, 0.0)
        given = tl.dot(out_gradient, tl.trans(value_tile), input_precision="ieee")
        slope = (weights * (given - delta[:, None])).to(key_tile.dtype)
        gradient = tl.dot(slope, key_tile, gradient, input_precision="ieee")
    return gradient


@triton.jit(do_not_specialize=["length", "longest_list"])
def query_gradient_kernel(
    query, key, value, out, out_gradient, log_sums, pairs, found,
    document_starts, key_spans, ranges, starts,
    query_row, query_head, query_stride, key_row, key_head, key_stride,
    value_row, value_head, value_stride, gradient_row, gradient_head, gradient_stride,
    found_stride, length, longest_list, scale, natural_scale,
    group: tl.constexpr, width: tl.constexpr, block_width: tl.constexpr,
    num_queries: tl.constexpr, num_keys: tl.constexpr,
    has_gaps: tl.constexpr, is_split: tl.constexpr,
):  # fmt: skip
    """Gradient of queries ``found (B, n, H, width)``; programs (T, H, B).

    It also writes ``pairs (B, H, n, 2)`` for the keys' kernel: the log-sum, and the sum of a result
    times its gradient.
    """
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head, row = tl.program_id(1), tl.program_id(2)
    num_heads = tl.num_programs(1)
    first, num_full, num_seen = load_range(ranges, row, tile)
    starts += (row * tl.num_programs(0) + tile) * longest_list
    key_spans += row * length * 2
    queries = tile * num_queries + tl.arange(0, num_queries)
    places = tl.minimum(queries, length - 1)
    query += row.to(tl.int64) * query_row + head * query_head
    key += row.to(tl.int64) * key_row + (head // group) * key_head
    value += row.to(tl.int64) * value_row + (head // group) * value_head
    out_gradient += row.to(tl.int64) * gradient_row + head * gradient_head
    out += row.to(tl.int64) * length * num_heads * width + head * width
    query_tile = load_rows(query, places, query_stride, width, block_width)
    given = load_rows(out_gradient, places, gradient_stride, width, block_width)
    result = load_rows(out, places, num_heads * width, width, block_width)
    delta = tl.sum(result.to(tl.float32) * given.to(tl.float32), 1)
    line = (row * num_heads + head).to(tl.int64) * length
    log_sum = tl.load(log_sums + line + places)
    pairs += line * 2 + queries[:, None] * 2 + tl.arange(0, 2)[None, :]
    tl.store(pairs, tl.join(log_sum, delta), mask=queries[:, None] < length)
    document_start = tl.load(document_starts + row * length + places)
    rule = (queries, document_start, key_spans, starts, first)
    gradient = tl.zeros((num_queries, block_width), tl.float32)
    if is_split:
        gradient = query_gradient_tiles(
            gradient, query_tile, key, value, given, log_sum, delta, rule,
            0, num_full, length, key_stride, value_stride, scale,
            width, num_keys, has_gaps, False,
        )  # fmt: skip
    else:
        num_full = 0
    gradient = query_gradient_tiles(
        gradient, query_tile, key, value, given, log_sum, delta, rule,
        num_full, num_seen, length, key_stride, value_stride, scale,
        width, num_keys, has_gaps, True,
    )  # fmt: skip
    found += row.to(tl.int64) * length * found_stride
    store_rows(found, gradient * natural_scale, head, queries, length, found_stride, width)


@triton.jit
def key_gradient_tiles(
    key_gradient, value_gradient, key, value, query, out_gradient, pairs,
    seen_from, seen_until, last, begin, end, query_stride, gradient_stride, scale,
    width: tl.constexpr, num_queries: tl.constexpr, is_masked: tl.constexpr,
):  # fmt: skip
    """Add what tiles of queries, counted backwards from ``last``, give to a tile of keys.

    Scores are ``(keys, queries)``, so that weights and slopes are left factors as they are.
    """
    block_width: tl.constexpr = key.shape[1]
    for i in range(begin, end):
        queries = last - (i + 1) * num_queries + tl.arange(0, num_queries)
        places = queries
        if is_masked:
            places = tl.maximum(queries, 0)
        query_tile = load_rows(query, places, query_stride, width, block_width)
        given_tile = load_rows(out_gradient, places, gradient_stride, width, block_width)
        log_sum, delta = load_pairs(pairs, places, queries >= 0)
        scores = tl.dot(key, tl.trans(query_tile), input_precision="ieee")
        weights = tl.exp2(scores * scale - log_sum[None, :])
        if is_masked:
            at = queries[None, :]
            weights = tl.where((at >= seen_from) & (at < seen_until), weights, 0.0)
        value_gradient = tl.dot(
            weights.to(given_tile.dtype), given_tile, value_gradient, input_precision="ieee"
        )
        given = tl.dot(value, tl.trans(given_tile), input_precision="ieee")
        slope = (weights * (given - delta[None, :])).to(query_tile.dtype)
        key_gradient = tl.dot(slope, query_tile, key_gradient, input_precision="ieee")
    return key_gradient, value_gradient


@triton.jit(do_not_specialize=["length"])
def key_gradient_kernel(
    query, key, value, out_gradient, pairs, key_found, value_found, key_spans, ranges,
    query_row, query_head, query_stride, key_row, key_head, key_stride,
    value_row, value_head, value_stride, gradient_row, gradient_head, gradient_stride,
    key_found_stride, value_found_stride, length, scale, natural_scale,
    group: tl.constexpr, width: tl.constexpr, block_width: tl.constexpr,
    num_queries: tl.constexpr, num_keys: tl.constexpr, is_split: tl.constexpr,
):  # fmt: skip
    """Gradients of keys and values ``(B, n, H / group, width)``; programs (T, H / group, B)."""
    tile, kv_head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    num_kv_heads = tl.num_programs(1)
    last, num_full, num_seen = load_range(ranges, row, tile)
    keys = tile * num_keys + tl.arange(0, num_keys)
    places = tl.minimum(keys, length - 1)
    key += row.to(tl.int64) * key_row + kv_head * key_head
    value += row.to(tl.int64) * value_row + kv_head * value_head
    key_tile = load_rows(key, places, key_stride, width, block_width)
    value_tile = load_rows(value, places, value_stride, width, block_width)
    seen_from, seen_until = load_pairs(key_spans + row * length * 2, keys, keys < length)
    seen_from, seen_until = seen_from[:, None], seen_until[:, None]
    for_keys = tl.zeros((num_keys, block_width), tl.float32)
    for_values = tl.zeros((num_keys, block_width), tl.float32)
    if not is_split:
        num_full = 0
    for member in range(group):
        head = kv_head * group + member
        queries = query + row.to(tl.int64) * query_row + head * query_head
        given = out_gradient + row.to(tl.int64) * gradient_row + head * gradient_head
        line = (row * num_kv_heads * group + head).to(tl.int64) * length
        if is_split:
            for_keys, for_values = key_gradient_tiles(
                for_keys, for_values, key_tile, value_tile, queries, given,
                pairs + line * 2, seen_from, seen_until, last, 0, num_full,
                query_stride, gradient_stride, scale, width, num_queries, False,
            )  # fmt: skip
        for_keys, for_values = key_gradient_tiles(
            for_keys, for_values, key_tile, value_tile, queries, given,
            pairs + line * 2, seen_from, seen_until, last, num_full, num_seen,
            query_stride, gradient_stride, scale, width, num_queries, True,
        )  # fmt: skip
    before = row.to(tl.int64) * length
    key_found += before * key_found_stride
    value_found += before * value_found_stride
    store_rows(key_found, for_keys * natural_scale, kv_head, keys, length, key_found_stride, width)
    store_rows(value_found, for_values, kv_head, keys, length, value_found_stride, width)
