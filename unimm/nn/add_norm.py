"""The sum of the stream and a branch, and its RMSNorm, in one pass by a kernel of our own.

Backward, the stream's gradient is added where that of the norm is made. Legend: ``D`` width.
"""

from typing import Any

import torch
from torch import Tensor

from unimm.nn.kernel_blocks import cut_row, next_power

PROGRAMS = 528
"""Of the gradient, at most: as many as an H100 runs at once, four a multiprocessor."""
_WARP_NUMBERS = 128
"""Of a row that a warp has."""
_NUMBERS = 2048
"""That a program of the gradient has in hand at once: as many rows as that are."""
_GRADIENT_WARP_NUMBERS = 512
"""Of these that a warp has: two reads of 16 bytes a thread."""


def add_norm(x: Tensor, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream and normalise the sum (Zhang and Sennrich, 2019), in float32.

    Args:
        x: ``(..., D)``.
        branch: ``(..., D)`` in the same format.
        weight: ``(D,)``.
        eps: of the norm.

    Returns:
        Sum and normalised sum, ``(..., D)`` each, in the format of ``x``.
    """
    return _add_norm(x, branch.to(x.dtype), weight, eps)


@torch.library.custom_op("unimm::add_norm", mutates_args=())
def _add_norm(x: Tensor, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, branch = x.contiguous(), branch.contiguous()
    added, normed, size = torch.empty_like(x), torch.empty_like(x), x.shape[-1]
    if x.numel():
        _kernels().add_norm_kernel[(x.numel() // size,)](
            *(x, branch, weight, added, normed, size, eps),
            **cut_row(size, numbers_a_warp=_WARP_NUMBERS),
        )
    return added, normed


@torch.library.custom_op("unimm::add_norm_backward", mutates_args=())
def _add_norm_backward(
    for_added: Tensor, for_normed: Tensor, added: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Gradients of both summands and of the weights, the latter ``(D,)`` float32."""
    for_added, for_normed = for_added.contiguous(), for_normed.contiguous()
    found, size = torch.empty_like(added), added.shape[-1]
    num_rows = added.numel() // size
    if not num_rows:
        return found, added.new_zeros(size, dtype=torch.float32)
    cut = _cut_gradient(size)
    num_programs = min(PROGRAMS, -(-num_rows // cut["block_rows"]))
    for_weights = added.new_empty(num_programs, size, dtype=torch.float32)
    _kernels().add_norm_gradient_kernel[(num_programs,)](
        *(added, weight, for_added, for_normed, found, for_weights, num_rows, size, eps), **cut
    )
    return found, _kernels().sum_rows(for_weights)


@_add_norm.register_fake
def _(x: Tensor, branch: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    added, normed = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(2))
    return added, normed


@_add_norm_backward.register_fake
def _(
    for_added: Tensor, for_normed: Tensor, added: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(added), added.new_empty(added.shape[-1], dtype=torch.float32)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *_, weight, ctx.eps = inputs
    ctx.save_for_backward(output[0], weight)


def _gradients(ctx: Any, for_added: Tensor, for_normed: Tensor) -> tuple[Tensor | None, ...]:
    added, weight = ctx.saved_tensors
    found, for_weight = _add_norm_backward(for_added, for_normed, added, weight, ctx.eps)
    return found, found, for_weight.to(weight.dtype), None


_add_norm.register_autograd(_gradients, setup_context=_keep)


def _cut_gradient(size: int) -> dict[str, int]:
    """How rows are cut for the gradient, and how many steps ahead they are read."""
    block = next_power(size)
    block_rows = max(1, _NUMBERS // block)
    num_warps = min(max(1, block_rows * block // _GRADIENT_WARP_NUMBERS), 16)
    stages = 3 if block <= 4096 else 2  # wider rows would not fit
    return {"block_rows": block_rows, "block": block, "stages": stages, "num_warps": num_warps}


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import layer_kernels

    return layer_kernels
