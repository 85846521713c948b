# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
"""A Triton kernel that takes rows of a table by index.

Legend: ``N`` ids, ``D`` width, -1 for no row.
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
