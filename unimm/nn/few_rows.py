"""Products of a few rows with a matrix on a GPU: read once by kernels of ours, which overlap.

The library's kernels are made for more rows.
"""

from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

FEW_ROWS = 4
"""Rows up to which a matrix is read by our kernels."""

PRODUCTS: dict[str, tuple[int, int, int | None]] = {
    "project": (4, 1, None),
    "output": (2, 2, None),
    "gate": (4, 4, 80),
    "down": (1, 4, None),
    "head": (4, 1, None),
}
"""Outputs of a program, its warps, and the most registers of a thread, by product of a few rows.

All that a program reads is asked for at once. Fewer outputs where they do not fit the registers or
do not divide a matrix. With fewer registers all programs of a product run at once, and beside those
of the product before: what a compiler takes by itself lets a third of ``gate``'s wait. More warps
where a row is wider than one read of them, or so few registers would not hold it.
"""
_WARP_BYTES = 8192
"""Of weights that a warp holds: half of its registers."""


def can_multiply(x: Tensor, weight: Tensor) -> bool:
    """Whether ``multiply`` takes these: inference in one format on a GPU that Triton compiles for.

    Autocast would change the format, and a compiler has kernels of its own.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    is_few = 0 < x.numel() <= FEW_ROWS * x.shape[-1] and x.shape[-1] % 16 == 0
    is_plain = x.dtype == weight.dtype != torch.float64 and weight.is_contiguous()
    return is_few and is_plain and not torch.is_autocast_enabled("cuda") and has_triton_package()


def multiply(x: Tensor, weight: Tensor) -> Tensor:
    """``x @ weight.T``: ``(..., in)`` and ``(out, in)`` to ``(..., out)``."""
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    out = x.new_empty(len(rows), len(weight))
    return _product("head", None, rows, weight, out).view(*x.shape[:-1], -1)


def add_product(name: str, x: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """``x + hidden @ weight.T``: ``(R, out)``, ``(R, in)`` and ``(out, in)`` to ``(R, out)``."""
    return _product(name, x, hidden, weight, torch.empty_like(x))


def project(
    x: Tensor, norm_weight: Tensor, eps: float, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Normalise rows and multiply them with the matrices of queries, keys and values.

    Args:
        x: ``(R, in)``.
        norm_weight: of the RMSNorm, ``(in,)``.
        eps: of the norm.
        weights: ``(out_i, in)`` each; keys and values have as many outputs.

    Returns:
        ``(R, out_i)`` each; their rows lie apart.
    """
    sizes = list(map(len, weights))
    out = x.new_empty(len(x), sum(sizes))
    blocks = cut("project", x, x.shape[1], gcd(*sizes))
    _kernels().project_kernel[(out.shape[1] // blocks["block_out"],)](
        x, norm_weight, *weights, out, *sizes[:2], eps, **blocks
    )
    return out.split(sizes, dim=1)


def gate(
    x: Tensor, norm_weight: Tensor, eps: float, gate_weight: Tensor, up_weight: Tensor
) -> Tensor:
    """Normalise rows, then ``silu(x @ gate.T) * (x @ up.T)``: ``(R, in)`` to ``(R, out)``."""
    out = x.new_empty(len(x), len(gate_weight))
    blocks = cut("gate", x, x.shape[1], out.shape[1], num_matrices=2)
    _kernels().gate_kernel[(out.shape[1] // blocks["block_out"],)](
        x, norm_weight, gate_weight, up_weight, out, out.shape[1], eps, **blocks
    )
    return out


def _product(name: str, x: Tensor | None, hidden: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    blocks = cut(name, hidden, hidden.shape[1], out.shape[1])
    _kernels().product_kernel[(out.shape[1] // blocks["block_out"],)](
        hidden if x is None else x, hidden, weight, out, out.shape[1], is_added=x is not None,
        **blocks,
    )  # fmt: skip
    return out


def cut(
    name: str, x: Tensor, num_in: int, num_outputs: int, num_matrices: int = 1
) -> dict[str, Any]:
    """How a product of a few rows with matrices ``(num_outputs, num_in)`` is cut.

    Args:
        name: of the product.
        x: the rows, of which there are as many and in the format of the product's.
        num_in: numbers of an input.
        num_outputs: of every matrix.
        num_matrices: that a program reads.

    Returns:
        Options of the product's kernel.
    """
    block_out, num_warps, num_registers = PRODUCTS[name]
    while num_registers and num_warps < 16 and num_in * x.element_size() > num_warps * 512:
        num_warps *= 2
    row_bytes, most = num_matrices * num_in * x.element_size(), _WARP_BYTES * num_warps
    while block_out > 1 and (num_outputs % block_out or block_out * row_bytes > most):
        block_out //= 2
    return {
        "num_in": num_in,
        "num_rows": len(x),
        "block_out": block_out,
        "block_in": num_warps * 512 // x.element_size(),  # 16 bytes a thread
        "num_warps": num_warps,
        "maxnreg": num_registers if len(x) <= 2 else None,  # more rows need more
        **overlap(x),
    }


def overlap(x: Tensor) -> dict[str, bool]:
    """From Hopper on a kernel may begin while the one before it ends: its weights are there then.

    Programmatic dependent launch, CUDA C++ Programming Guide. A kernel launched so waits for the
    one before (``take_over``) before it reads or writes anything but what no step changes. With
    more rows ``x`` its neighbours are the library's, which end first: it would begin later so.
    """
    is_able = x.is_cuda and torch.cuda.get_device_capability(x.device) >= (9, 0)
    is_able = is_able and len(x) <= FEW_ROWS
    return {"has_pdl": is_able, "launch_pdl": is_able}


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import few_kernels

    return few_kernels
