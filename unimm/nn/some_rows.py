"""Products of some dozens of rows with matrices on a GPU, by kernels of ours, which overlap.

Legend: ``T`` rows, ``D`` width of the stream, ``S`` parts of a product.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unimm.nn.adjacent import side_by_side
from unimm.nn.few_rows import FEW_ROWS, overlap
from unimm.nn.kernel_blocks import cut_row, next_power
from unimm.nn.transformer import RMSNorm

SOME_ROWS = 128
"""Rows up to which our kernels multiply; more fill a GPU with the library's tiles."""
PRODUCTS: dict[str, tuple[int, int, int, int, int]] = {
    "project": (64, 64, 128, 4, 4),
    "gate": (64, 64, 64, 4, 4),
    "parts": (64, 64, 64, 4, 4),
}
"""Rows, outputs and inputs of a tile, how many tiles are on their way, and warps."""
PROGRAMS = 132
"""That a product is cut into parts for: an H100's multiprocessors."""
_WARP_NUMBERS = 256
"""Of a row that a warp of a sum has: a read of 16 bytes a thread."""


def can_multiply_some(x: Tensor) -> bool:
    """Whether these kernels take ``x (T, D)``: half precision, as the tensor cores want it."""
    return FEW_ROWS < len(x) <= SOME_ROWS and x.dtype in (torch.float16, torch.bfloat16)


def multiply(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``x @ weight.T`` for each weight, as one product if they lie together."""
    whole = side_by_side(weights)
    if whole is None:
        return tuple(_product("project", x, weight)[0] for weight in weights)
    return _product("project", x, whole)[0].split([len(weight) for weight in weights], dim=1)


def multiply_parts(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T`` in parts that are still to be added up, ``(S, T, N)`` float32."""
    return _product("parts", x, weight)


def multiply_gated(x: Tensor, gate_weight: Tensor, up_weight: Tensor) -> Tensor:
    """``silu(x @ gate.T) * (x @ up.T)``, ``(T, F)``."""
    out = x.new_empty(len(x), len(gate_weight))
    cut = _cut("gate", x)
    grid = (-(-out.shape[1] // cut["block_out"]), -(-len(x) // cut["block_rows"]))
    _kernels().gated_product_kernel[grid](
        *(x, gate_weight, up_weight, out, len(x), out.shape[1]), num_in=x.shape[1], **cut
    )
    return out


def add_parts(x: Tensor, parts: Tensor, norm: RMSNorm | None) -> tuple[Tensor, Tensor]:
    """Add a product to the stream ``(T, D)``: the sum, and the sum normalised if that is wanted."""
    added, size = torch.empty_like(x), x.shape[1]
    normed = torch.empty_like(x) if norm else added
    _kernels().add_parts_kernel[(len(x),)](
        *(x, parts, norm.weight if norm else x, added, normed, len(x), norm.eps if norm else 0.0),
        width=size,
        num_parts=len(parts),
        has_norm=norm is not None,
        **cut_row(size, numbers_a_warp=_WARP_NUMBERS),
        **overlap(x),
    )
    return added, normed


def _product(name: str, x: Tensor, weight: Tensor) -> Tensor:
    """``(S, T, N)``: one part in the format of ``x``, or several in float32."""
    (num_rows, num_in), num_outputs, cut = x.shape, len(weight), _cut(name, x)
    grid = (-(-num_outputs // cut["block_out"]), -(-num_rows // cut["block_rows"]))
    num_parts = 1
    if name == "parts":
        most = -(-num_in // (2 * cut["block_in"]))  # two tiles a part at least
        num_parts = max(1, min(most, PROGRAMS // (grid[0] * grid[1]), 8))
        num_parts = -(-num_in // (-(-num_in // (num_parts * cut["block_in"])) * cut["block_in"]))
    dtype = torch.float32 if name == "parts" else x.dtype
    out = x.new_empty(num_parts, num_rows, num_outputs, dtype=dtype)
    _kernels().parts_kernel[(*grid, num_parts)](
        *(x, weight, out, num_rows, num_outputs), num_in=num_in, num_parts=num_parts, **cut
    )
    return out


def _cut(name: str, x: Tensor) -> dict[str, Any]:
    """Options of a product's kernel."""
    rows, outputs, inputs, stages, num_warps = PRODUCTS[name]
    return {
        "block_rows": min(rows, max(16, next_power(len(x)))),
        "block_out": outputs,
        "block_in": inputs,
        "stages": stages,
        "num_warps": num_warps,
        **overlap(x),
    }


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import some_kernels

    return some_kernels
