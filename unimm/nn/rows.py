"""Rows of a table by index in training, by kernels of our own on a GPU: embeddings, heads' inputs.

Nothing of a table's width is written in float32 but its gradient. Legend: ``V`` rows, ``N`` ids,
``D`` width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from unimm.nn.kernel_blocks import cut_row

CHUNK = 32
"""Rows of a gradient that a program adds up."""
_WARP_NUMBERS = 256
"""Of a row that a warp has: a read of 16 bytes a thread."""


def has_row_kernels(x: Tensor) -> bool:
    """Whether our kernels run where a tensor is."""
    return x.is_cuda and has_triton_package()


def add_rows(x: Tensor | None, table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows of a table, rounded after they are taken, and added to ``x`` if there is one.

    Args:
        x: ``(N, D)`` of that format, or none for zeros.
        table: ``(V, D)``; its gradient is added up in float32.
        ids: ``(N,)`` integers; -1 adds nothing.
        dtype: of the result.

    Returns:
        ``(N, D)``.
    """
    return _add_rows(x, table, ids.to(torch.int32), dtype)


def place_rows(x: Tensor, given: Tensor, index: Tensor) -> Tensor:
    """``x (M, D)`` with the rows ``given (N, D)`` at ``index (N,)``, where it is zero.

    On a GPU; elsewhere it may hold anything there, and is written to.
    """
    if has_row_kernels(x):
        return _PlaceRows.apply(x, given, index)  # pyright: ignore[reportReturnType]
    return x.index_copy_(0, index, given)


def select_rows(x: Tensor, indices: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Rows ``(N, D)`` of ``x`` for each index ``(N,)``; none holds a row twice."""
    if has_row_kernels(x):
        return _SelectRows.apply(x, *indices)  # pyright: ignore[reportReturnType]
    # An index as such has a gradient that is sorted first, as if positions could come twice.
    return tuple(x.index_select(0, index) for index in indices)


@torch.library.custom_op("unimm::add_rows", mutates_args=())
def _add_rows(x: Tensor | None, table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    found = table.new_empty(len(ids), table.shape[1], dtype=dtype)
    _take(table, ids, found, base=x)
    return found


@torch.library.custom_op("unimm::add_rows_backward", mutates_args=())
def _table_gradient(gradient: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    """Gradient of the table, ``(V, D)`` float32."""
    gradient, size = gradient.contiguous(), gradient.shape[1]
    found = gradient.new_zeros(num_rows, size, dtype=torch.float32)
    if len(ids):
        ordered, order = ids.sort(stable=True)  # the order of sums is that of positions
        num_programs = -(-len(ids) // CHUNK)
        parts = gradient.new_empty(num_programs, 2, size, dtype=torch.float32)
        sizes = (len(ids), size)
        cut = {"chunk": CHUNK, **cut_row(size, numbers_a_warp=_WARP_NUMBERS)}
        _kernels().sum_runs_kernel[(num_programs,)](
            *(gradient, order, ordered, found, parts, *sizes), **cut
        )
        _kernels().join_runs_kernel[(num_programs,)](parts, ordered, found, *sizes, **cut)
    return found


@_add_rows.register_fake
def _(x: Tensor | None, table: Tensor, ids: Tensor, dtype: torch.dtype) -> Tensor:
    return table.new_empty(len(ids), table.shape[1], dtype=dtype)


@_table_gradient.register_fake
def _(gradient: Tensor, ids: Tensor, num_rows: int) -> Tensor:
    return gradient.new_empty(num_rows, gradient.shape[1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, table, ids, _ = inputs
    ctx.has_base, ctx.num_rows, ctx.dtype = x is not None, len(table), table.dtype
    ctx.save_for_backward(ids)


def _gradients(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    for_table = None
    if ctx.needs_input_grad[1]:
        for_table = _table_gradient(gradient, *ctx.saved_tensors, ctx.num_rows).to(ctx.dtype)
    return gradient if ctx.has_base else None, for_table, None, None


_add_rows.register_autograd(_gradients, setup_context=_keep)


class _PlaceRows(torch.autograd.Function):
    """Rows put where there were none: what was there needs no gradient, so all of it passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, given: Tensor, index: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        found = torch.empty_like(x)
        _take(given, _inverse(index, len(x)), found, base=x)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (index,) = ctx.saved_tensors
        return gradients[0], gradients[0].index_select(0, index), None


class _SelectRows(torch.autograd.Function):
    """Rows for several readers, whose gradients are put together in one tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *indices: Tensor) -> tuple[Tensor, ...]:
        ctx.num_rows = len(x)
        ctx.save_for_backward(*indices)
        return tuple(x.index_select(0, index) for index in indices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, gradients, strict=True)
        largest, *others = sorted(pairs, key=lambda pair: -len(pair[0]))
        found = gradients[0].new_empty(ctx.num_rows, gradients[0].shape[1])
        _take(largest[1], _inverse(largest[0], ctx.num_rows), found)
        for index, gradient in others:
            _take(gradient, _inverse(index, ctx.num_rows), found, base=found)
        return found, *[None] * len(gradients)


def _inverse(index: Tensor, num_rows: int) -> Tensor:
    """Which place of the index holds each row, -1 for none, ``(num_rows,)`` int32."""
    places = torch.arange(len(index), device=index.device, dtype=torch.int32)
    return places.new_full((num_rows,), -1).index_copy_(0, index, places)


def _take(table: Tensor, ids: Tensor, found: Tensor, *, base: Tensor | None = None) -> None:
    """Write rows of a table into ``found``, with those of ``base``, which may be the same."""
    if not len(ids):
        return
    size = found.shape[1]
    base_at = found if base is None else base.contiguous()
    _kernels().take_rows_kernel[(len(ids),)](
        *(table.contiguous(), ids, base_at, found, size),
        has_base=base is not None,
        in_place=base is found,
        **cut_row(size, numbers_a_warp=_WARP_NUMBERS),
    )


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import row_kernels

    return row_kernels
