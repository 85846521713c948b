# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false
"""Triton kernels of products of a few rows, with the norm before them.

Each reads its matrix once, all that a program has of it at once and while the kernel before still
runs. Sums are float32.
"""

import triton
import triton.language as tl

from unimm.nn.kernel_parts import gated, take_over


@triton.jit
def load_columns(rows, num_in: tl.constexpr, block_in: tl.constexpr, eviction: tl.constexpr):
    """All columns of rows (a column of addresses): tiles of ``block_in``, all asked for at once."""
    tiles = ()
    for start in tl.static_range(0, num_in, block_in):
        at = start + tl.arange(0, block_in)[None, :]
        if start + block_in <= num_in:
            tiles += (tl.load(rows + at, eviction_policy=eviction),)
        else:
            tile = tl.load(rows + at, mask=at < num_in, other=0.0, eviction_policy=eviction)
            tiles += (tile,)
    return tiles


@triton.jit
def load_outputs(weight, outputs, num_in: tl.constexpr, block_in: tl.constexpr):
    """Rows ``outputs`` of a matrix, which is read once and then no more."""
    rows = weight + outputs.to(tl.int64)[:, None] * num_in
    return load_columns(rows, num_in, block_in, "evict_first")


@triton.jit
def load_stream(x, num_in: tl.constexpr, num_rows: tl.constexpr, block_in: tl.constexpr):
    """A few whole rows, each in tiles of columns."""
    rows = ()
    for row in tl.static_range(num_rows):
        rows += (load_columns(x + row * num_in, num_in, block_in, ""),)
    return rows


@triton.jit
def dot_tiles(left, right):
    """Products of two lists of tiles, added up tile upon tile: only columns are left to sum."""
    sums = left[0].to(tl.float32) * right[0].to(tl.float32)
    for i in tl.static_range(1, len(right)):
        sums += left[i].to(tl.float32) * right[i].to(tl.float32)
    return sums


@triton.jit
def sum_columns(tiles):
    """Sums over the columns of each tile; two at once, so that warps wait for each other less."""
    sums = ()
    for i in tl.static_range(0, len(tiles) - 1, 2):
        first, second = tl.split(tl.sum(tl.join(tiles[i], tiles[i + 1]), 1))
        sums += (first, second)
    if len(tiles) % 2 == 1:
        sums += (tl.sum(tiles[len(tiles) - 1], 1),)
    return sums


@triton.jit
def inverse_roots(rows, num_in: tl.constexpr, eps):
    """What RMSNorm multiplies each row with, ``(1,)``."""
    squares = ()
    for i in tl.static_range(len(rows)):
        squares += (dot_tiles(rows[i], rows[i]),)
    sums, scales = sum_columns(squares), ()
    for i in tl.static_range(len(rows)):
        scales += (tl.rsqrt(sums[i] / num_in + eps),)
    return scales


@triton.jit
def weigh(row, gains):
    """A row times the weights of its norm, float32."""
    weighed = ()
    for i in tl.static_range(len(row)):
        weighed += (row[i].to(tl.float32) * gains[i].to(tl.float32),)
    return weighed


@triton.jit
def project_kernel(
    x, x_weight, query_weight, key_weight, value_weight, out, num_query, num_key, eps,
    num_in: tl.constexpr, num_rows: tl.constexpr, block_out: tl.constexpr,
    block_in: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise a few rows and multiply them with three matrices: queries, keys, values."""
    start = tl.program_id(0) * block_out
    before_values = num_query + num_key
    is_value, is_query = start >= before_values, start < num_query
    weight = tl.where(is_query, query_weight, tl.where(is_value, value_weight, key_weight))
    skipped = tl.where(is_query, 0, tl.where(is_value, before_values, num_query))
    outputs = start + tl.arange(0, block_out)
    tiles = load_outputs(weight, outputs - skipped, num_in, block_in)
    gains = load_columns(x_weight, num_in, block_in, "")
    take_over(has_pdl)
    rows = load_stream(x, num_in, num_rows, block_in)
    scales, products = inverse_roots(rows, num_in, eps), ()
    for i in tl.static_range(num_rows):
        products += (dot_tiles(tiles, weigh(rows[i], gains)),)
    sums = sum_columns(products)
    for i in tl.static_range(num_rows):
        target = out + i * (before_values + num_key) + outputs
        tl.store(target, (sums[i] * scales[i]).to(out.dtype.element_ty))


@triton.jit
def gate_kernel(
    x, x_weight, gate_weight, up_weight, out, num_outputs, eps,
    num_in: tl.constexpr, num_rows: tl.constexpr, block_out: tl.constexpr,
    block_in: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise a few rows; the two matrices of SwiGLU and their product."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    gate_tiles = load_outputs(gate_weight, outputs, num_in, block_in)
    up_tiles = load_outputs(up_weight, outputs, num_in, block_in)
    gains = load_columns(x_weight, num_in, block_in, "")
    take_over(has_pdl)
    rows = load_stream(x, num_in, num_rows, block_in)
    scales = inverse_roots(rows, num_in, eps)
    for i in tl.static_range(num_rows):
        weighed = weigh(rows[i], gains)
        sums = sum_columns((dot_tiles(gate_tiles, weighed), dot_tiles(up_tiles, weighed)))
        found = gated(sums[0] * scales[i], sums[1] * scales[i])
        tl.store(out + i * num_outputs + outputs, found.to(out.dtype.element_ty))


@triton.jit
def product_kernel(
    x, hidden, weight, out, num_outputs,
    num_in: tl.constexpr, num_rows: tl.constexpr, block_out: tl.constexpr,
    block_in: tl.constexpr, is_added: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """A product of a few rows with a matrix, which may be added to the stream ``x``."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    tiles = load_outputs(weight, outputs, num_in, block_in)
    take_over(has_pdl)
    rows = load_stream(hidden, num_in, num_rows, block_in)
    before, products = (), ()
    for i in tl.static_range(num_rows):
        if is_added:
            before += (tl.load(x + i * num_outputs + outputs).to(tl.float32),)
    for i in tl.static_range(num_rows):
        products += (dot_tiles(tiles, rows[i]),)
    sums = sum_columns(products)
    for i in tl.static_range(num_rows):
        found = sums[i]
        if is_added:
            found += before[i]
        tl.store(out + i * num_outputs + outputs, found.to(out.dtype.element_ty))
