# pyright: basic, reportMissingImports=false, reportOperatorIssue=false, reportIndexIssue=false
"""Triton kernels of a cached step with some dozens of rows: products, and sums with their norms.

Too many rows to be multiplied number by number, too few for the library's tiles to fill a GPU: so
a product is cut along its inputs, too, and its parts are added up where the next norm reads them.
Legend: ``T`` rows, ``N`` outputs, ``S`` parts of a product.
"""

import triton
import triton.language as tl

from unimm.nn.kernel_parts import gated, normalise, take_over


@triton.jit
def load_tile(places, start, at, num_in: tl.constexpr, block_in: tl.constexpr):
    """Columns of rows whose addresses are given, zero behind the last."""
    if num_in % block_in == 0:
        return tl.load(places + start)
    return tl.load(places + start, mask=(start + at < num_in)[None, :], other=0.0)


@triton.jit
def rows_of(x, index, count, at, num_in: tl.constexpr):
    """Addresses of rows; behind the last it is that one again."""
    return x + tl.minimum(index, count - 1).to(tl.int64)[:, None] * num_in + at[None, :]


@triton.jit
def store_tile(out, tile, rows, outputs, num_rows, num_outputs):
    """Write what there is of rows and outputs."""
    is_in = (rows < num_rows)[:, None] & (outputs < num_outputs)[None, :]
    places = out + rows.to(tl.int64)[:, None] * num_outputs + outputs[None, :]
    tl.store(places, tile.to(out.dtype.element_ty), mask=is_in)


@triton.jit
def parts_kernel(
    x, weight, out, num_rows, num_outputs,
    num_in: tl.constexpr, num_parts: tl.constexpr, block_rows: tl.constexpr,
    block_out: tl.constexpr, block_in: tl.constexpr, stages: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Parts of ``x @ weight.T``, ``(S, T, N)``, each of its share of the inputs.

    Programs: ``(blocks of outputs, blocks of rows, S)``.
    """
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    rows = tl.program_id(1) * block_rows + tl.arange(0, block_rows)
    part, at = tl.program_id(2), tl.arange(0, block_in)
    share: tl.constexpr = (num_in + num_parts * block_in - 1) // (num_parts * block_in) * block_in
    left = rows_of(x, rows, num_rows, at, num_in)
    right = rows_of(weight, outputs, num_outputs, at, num_in)
    sums = tl.zeros((block_rows, block_out), tl.float32)
    take_over(has_pdl)
    end = tl.minimum((part + 1) * share, num_in)
    for start in tl.range(part * share, end, block_in, num_stages=stages):
        tile = load_tile(left, start, at, num_in, block_in)
        sums = tl.dot(tile, load_tile(right, start, at, num_in, block_in).T, sums)
    target = out + part.to(tl.int64) * num_rows * num_outputs
    store_tile(target, sums, rows, outputs, num_rows, num_outputs)


@triton.jit
def gated_product_kernel(
    x, gate_weight, up_weight, out, num_rows, num_outputs,
    num_in: tl.constexpr, block_rows: tl.constexpr, block_out: tl.constexpr,
    block_in: tl.constexpr, stages: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """The two products of SwiGLU and theirs. Programs: ``(blocks of outputs, blocks of rows)``."""
    outputs = tl.program_id(0) * block_out + tl.arange(0, block_out)
    rows = tl.program_id(1) * block_rows + tl.arange(0, block_rows)
    at = tl.arange(0, block_in)
    left = rows_of(x, rows, num_rows, at, num_in)
    of_gate = rows_of(gate_weight, outputs, num_outputs, at, num_in)
    of_up = rows_of(up_weight, outputs, num_outputs, at, num_in)
    gate = tl.zeros((block_rows, block_out), tl.float32)
    up = tl.zeros((block_rows, block_out), tl.float32)
    take_over(has_pdl)
    for start in tl.range(0, num_in, block_in, num_stages=stages):
        tile = load_tile(left, start, at, num_in, block_in)
        gate = tl.dot(tile, load_tile(of_gate, start, at, num_in, block_in).T, gate)
        up = tl.dot(tile, load_tile(of_up, start, at, num_in, block_in).T, up)
    store_tile(out, gated(gate, up), rows, outputs, num_rows, num_outputs)


@triton.jit
def add_parts_kernel(
    x, parts, weight, added, normed, num_rows, eps,
    width: tl.constexpr, num_parts: tl.constexpr, has_norm: tl.constexpr, block: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """The stream and all parts of a product; the sum normalised. Programs: ``(T,)``."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, block)
    is_in = column < width
    if has_norm:
        gain = tl.load(weight + column, mask=is_in, other=0.0).to(tl.float32)
    take_over(has_pdl)
    place = row * width + column
    found = tl.load(x + place, mask=is_in, other=0.0).to(tl.float32)
    for part in tl.static_range(num_parts):
        at = parts + (part * num_rows + row) * width + column
        found += tl.load(at, mask=is_in, other=0.0)
    rounded = found.to(added.dtype.element_ty)
    tl.store(added + place, rounded, mask=is_in)
    if has_norm:
        found = normalise(rounded.to(tl.float32), gain, eps, width)
        tl.store(normed + place, found.to(normed.dtype.element_ty), mask=is_in)
