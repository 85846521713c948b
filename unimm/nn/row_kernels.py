# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
"""Triton kernels that take rows of a table by index, and add up rows of one index for its gradient.

Sums are float32 and in a fixed order. Legend: ``N`` ids, ``D`` width, -1 for no row.
"""

import triton
import triton.language as tl


@triton.jit
def take_rows_kernel(
    table, ids, base, found, size,
    has_base: tl.constexpr, in_place: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Rows of ``table`` by ``ids (N,)``, plus ``base (N, D)`` if there is one: ``found (N, D)``.

    In place, only rows that have an id are written; programs are ``(N,)``.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, block)
    chosen = tl.load(ids + row).to(tl.int64)
    is_in, is_chosen = at < size, (at < size) & (chosen >= 0)
    given = tl.load(table + chosen * size + at, mask=is_chosen, other=0.0).to(tl.float32)
    is_written = is_chosen if in_place else is_in
    if has_base:
        given += tl.load(base + row * size + at, mask=is_written, other=0.0).to(tl.float32)
    tl.store(found + row * size + at, given.to(found.dtype.element_ty), mask=is_written)


@triton.jit
def sum_runs_kernel(
    gradient, order, ids, found, parts, count, size, chunk: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Add up rows ``gradient[order]`` of one id each, the sorted ``ids (N,)``, into ``found[id]``.

    A program has ``chunk`` of them. What it has of runs that others begin or end goes to ``parts
    (programs, 2, D)``: first of the one that began before, then of the one that begins here.
    """
    program = tl.program_id(0).to(tl.int64)
    first, at = program * chunk, tl.arange(0, block)
    is_in = at < size
    sums = tl.zeros((block,), tl.float32)
    before = tl.load(ids + first - 1, mask=first > 0, other=-2)
    is_own = tl.load(ids + first) != before  # whether the run began here
    for i in tl.range(0, chunk, num_stages=4):  # reads ahead
        place = first + i
        here = tl.load(ids + place, mask=place < count, other=-1).to(tl.int64)
        after = tl.load(ids + place + 1, mask=place + 1 < count, other=-1)
        row = tl.load(order + place, mask=place < count, other=0).to(tl.int64)
        is_here, is_last = is_in & (here >= 0), here != after
        sums += tl.load(gradient + row * size + at, mask=is_here, other=0.0).to(tl.float32)
        tl.store(found + here * size + at, sums, mask=is_here & is_last & is_own)
        tl.store(parts + 2 * program * size + at, sums, mask=is_here & is_last & (is_own == 0))
        tl.store(
            parts + (2 * program + is_own.to(tl.int64)) * size + at,
            sums,
            mask=is_here & (is_last == 0) & (i == chunk - 1),
        )
        is_own = is_own | is_last
        sums = tl.where(is_last, 0.0, sums)


@triton.jit
def join_runs_kernel(
    parts, ids, found, count, size, chunk: tl.constexpr, block: tl.constexpr
):  # fmt: skip
    """Add up the parts of each run that goes on behind the program where it begins."""
    program = tl.program_id(0).to(tl.int64)
    first, at = program * chunk, tl.arange(0, block)
    last, is_in = first + chunk - 1, at < size
    here = tl.load(ids + last, mask=last < count, other=-1).to(tl.int64)
    after = tl.load(ids + last + 1, mask=last + 1 < count, other=-1)
    before = tl.load(ids + first - 1, mask=first > 0, other=-2)
    if (here >= 0) & (after == here) & (before != here):
        sums = tl.load(parts + (2 * program + 1) * size + at, mask=is_in, other=0.0)
        goes_on = after == here
        while goes_on:
            program += 1
            sums += tl.load(parts + 2 * program * size + at, mask=is_in, other=0.0)
            following = (program + 1) * chunk
            goes_on = tl.load(ids + following, mask=following < count, other=-1) == here
        tl.store(found + here * size + at, sums, mask=is_in)
