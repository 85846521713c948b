# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
"""A Triton kernel of a denoiser's attention: norms of heads, softmax and sums in one.

Keys go to the matrix units as they lie in memory: a norm's weights are the queries' to take along,
and what a key is divided by scales its scores. Softmax is taken tile by tile (Milakov and
Gimelshein, 2018; Dao et al., 2022) with powers of two; sums are float32. Legend as in
``normed_attention.py``.
"""

import triton
import triton.language as tl


@triton.jit
def load_parts(x, places, stride, width: tl.constexpr, whole: tl.constexpr, rest: tl.constexpr):
    """Places of one head: their first ``whole`` numbers, and what is left in ``rest`` columns."""
    rows = x + places[:, None] * stride
    parts = (tl.load(rows + tl.arange(0, whole)[None, :]),)
    if rest:
        at = whole + tl.arange(0, rest)[None, :]
        parts += (tl.load(rows + at, mask=at < width, other=0.0),)
    return parts


@triton.jit
def load_gains(weight, width: tl.constexpr, whole: tl.constexpr, rest: tl.constexpr):
    """A norm's weights as ``load_parts`` cuts heads."""
    return load_parts(weight, tl.zeros((1,), tl.int32), 0, width, whole, rest)


@triton.jit
def inverse_norms(parts, width: tl.constexpr, eps):
    """What RMSNorm multiplies each place with, ``(places,)``."""
    squares = tl.sum(parts[0].to(tl.float32) * parts[0].to(tl.float32), 1)
    for i in tl.static_range(1, len(parts)):
        squares += tl.sum(parts[i].to(tl.float32) * parts[i].to(tl.float32), 1)
    return tl.rsqrt(squares / width + eps)


@triton.jit
def normed_attention_kernel(
    query, key, value, query_weight, key_weight, out,
    query_picture, query_place, key_picture, key_place, value_picture, value_place,
    num_queries, eps, scale, num_keys: tl.constexpr,
    width: tl.constexpr, whole: tl.constexpr, rest: tl.constexpr,
    block_queries: tl.constexpr, block_keys: tl.constexpr,
):  # fmt: skip
    """``query (B, n, H, W)``, ``key`` and ``value (B, m, H, W)`` to ``out (B, n, H, W)``.

    Programs are ``(tiles of n, H, B)``. A head is cut in ``whole`` numbers, a power of two, and the
    ``rest`` in as many columns or more, none if there is no rest.
    """
    has_tail: tl.constexpr = num_keys % block_keys != 0
    head, picture = tl.program_id(1), tl.program_id(2).to(tl.int64)
    query += picture * query_picture + head * width
    key += picture * key_picture + head * width
    value += picture * value_picture + head * width
    dtype = out.dtype.element_ty
    places = tl.program_id(0) * block_queries + tl.arange(0, block_queries)
    given = load_parts(query, tl.minimum(places, num_queries - 1), query_place, width, whole, rest)
    query_gains = load_gains(query_weight, width, whole, rest)
    key_gains = load_gains(key_weight, width, whole, rest)
    factor = (inverse_norms(given, width, eps) * scale)[:, None]
    queries, sums = (), ()
    for i in tl.static_range(len(given)):
        gains = query_gains[i].to(tl.float32) * key_gains[i].to(tl.float32)
        queries += ((given[i].to(tl.float32) * factor * gains).to(dtype),)
        sums += (tl.zeros((block_queries, given[i].shape[1]), tl.float32),)
    total = tl.zeros((block_queries,), tl.float32)
    highest = total - float("inf")
    for start in range(0, num_keys, block_keys):
        at = start + tl.arange(0, block_keys)
        seen = tl.minimum(at, num_keys - 1) if has_tail else at
        keys = load_parts(key, seen, key_place, width, whole, rest)
        values = load_parts(value, seen, value_place, width, whole, rest)
        scores = tl.dot(queries[0], tl.trans(keys[0]))
        for i in tl.static_range(1, len(keys)):
            scores = tl.dot(queries[i], tl.trans(keys[i]), scores)
        scores *= inverse_norms(keys, width, eps)[None, :]
        if has_tail:
            scores = tl.where((at < num_keys)[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        weights, shrink = tl.exp2(scores - higher[:, None]), tl.exp2(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        mixed = ()
        for i in tl.static_range(len(values)):
            mixed += (tl.dot(weights.to(dtype), values[i], sums[i] * shrink[:, None]),)
        sums, highest = mixed, higher
    out += (picture * num_queries + places[:, None]) * tl.num_programs(1) * width + head * width
    is_in = (places < num_queries)[:, None]
    for i in tl.static_range(len(sums)):
        at = i * whole + tl.arange(0, sums[i].shape[1])[None, :]
        tl.store(out + at, (sums[i] / total[:, None]).to(dtype), mask=is_in & (at < width))
