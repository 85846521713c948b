# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Triton kernels before and behind the trunk's layers in a block of a chain.

What was drawn comes in, and what the next draw reads goes out. Legend as in ``fused_chain.py``.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_wait

from unimm.nn.kernel_parts import normalise, take_over


@triton.jit
def enter_kernel(
    drawn, table, positions, at, frequencies, stream, cosines, sines, num_drawn, num_blocks,
    width: tl.constexpr, half: tl.constexpr, block: tl.constexpr, block_half: tl.constexpr,
    has_pdl: tl.constexpr,
):  # fmt: skip
    """Embed what was drawn, in every branch; cosines and sines of its position. Programs: ``(R,)``.

    No kernel behind it begins before it ends: some read, before they wait, what the block before
    has written, the rows' lengths and the cache.
    """
    row = tl.program_id(0).to(tl.int64)
    if has_pdl:
        gdc_wait()
    token = tl.load(drawn + row % num_drawn)
    place = positions + (row * num_blocks + tl.load(at)) * 3
    column = tl.arange(0, block)
    is_in = column < width
    embedded = tl.load(table + token * width + column, mask=is_in)
    tl.store(stream + row * width + column, embedded, mask=is_in)
    turn = tl.arange(0, block_half)
    is_in = turn < half
    angle = tl.load(place + turn % 3).to(tl.float32)
    angle *= tl.load(frequencies + turn, mask=is_in, other=0.0)
    tl.store(cosines + row * half + turn, tl.cos(angle), mask=is_in)
    tl.store(sines + row * half + turn, tl.sin(angle), mask=is_in)


@triton.jit
def leave_kernel(
    stream, weight, last, at, lengths, eps,
    width: tl.constexpr, block: tl.constexpr, has_pdl: tl.constexpr,
):  # fmt: skip
    """Normalise a row of the stream for the next draw; count the block. Programs: ``(R,)``."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    is_in = column < width
    gain = tl.load(weight + column, mask=is_in, other=0.0).to(tl.float32)
    take_over(has_pdl)
    x = tl.load(stream + row * width + column, mask=is_in, other=0.0).to(tl.float32)
    found = normalise(x, gain, eps, width).to(last.dtype.element_ty)
    tl.store(last + row * width + column, found, mask=is_in)
    tl.store(lengths + row, tl.load(lengths + row) + 1)
    if row == 0:
        tl.store(at, tl.load(at) + 1)
