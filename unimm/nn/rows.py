"""Rows by index in training, by a kernel of our own on a GPU: what heads read of the trunk.

Legend: ``N`` ids, ``D`` width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

_WARP_NUMBERS = 256
"""Of a row that a warp has: a read of 16 bytes a thread."""


def has_row_kernels(x: Tensor) -> bool:
    """Whether our kernels run where a tensor is."""
    return x.is_cuda and has_triton_package()


def select_rows(x: Tensor, indices: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Rows ``(N, D)`` of ``x`` for each index ``(N,)``; none holds a row twice."""
    if has_row_kernels(x):
        return _SelectRows.apply(x, *indices)  # pyright: ignore[reportReturnType]
    # An index as such has a gradient that is sorted first, as if positions could come twice.
    return tuple(x.index_select(0, index) for index in indices)


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
        **_cut(size),
    )


def _cut(size: int) -> dict[str, int]:
    """How a row is cut."""
    block = 1 << (size - 1).bit_length()
    return {"block": block, "num_warps": min(max(1, block // _WARP_NUMBERS), 16)}


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import row_kernels

    return row_kernels
