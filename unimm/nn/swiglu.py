"""SwiGLU between its two products in training, by a kernel of our own (Shazeer, 2020).

Gates and what they gate come out of one product, and their gradients go back into one. Legend:
``F`` inner width.
"""

from typing import Any

import torch
from torch import Tensor

from unimm.nn.kernel_blocks import next_power

BLOCK = 4096
"""Numbers of a position that a program looks at together, at most."""
_WARP_NUMBERS = 512
"""Of these that a warp has: two reads of 16 bytes a thread."""


@torch.library.custom_op("unimm::swiglu", mutates_args=())
def swiglu(joined: Tensor) -> Tensor:
    """``silu(gate) * up`` in float32.

    Args:
        joined: ``(..., 2 F)``, gates first.

    Returns:
        ``(..., F)``.
    """
    joined = joined.contiguous()
    size = joined.shape[-1] // 2
    hidden = joined.new_empty(*joined.shape[:-1], size)
    if hidden.numel():
        blocks, cut = _cut(size)
        _kernels().swiglu_kernel[(hidden.numel() // size, blocks)](joined, hidden, size, **cut)
    return hidden


@torch.library.custom_op("unimm::swiglu_backward", mutates_args=())
def _swiglu_backward(gradient: Tensor, joined: Tensor) -> Tensor:
    """Gradient of ``joined``."""
    gradient, joined = gradient.contiguous(), joined.contiguous()
    found, size = torch.empty_like(joined), gradient.shape[-1]
    if gradient.numel():
        blocks, cut = _cut(size)
        grid = (gradient.numel() // size, blocks)
        _kernels().swiglu_gradient_kernel[grid](joined, gradient, found, size, **cut)
    return found


@swiglu.register_fake
def _(joined: Tensor) -> Tensor:
    return joined.new_empty(*joined.shape[:-1], joined.shape[-1] // 2)


@_swiglu_backward.register_fake
def _(gradient: Tensor, joined: Tensor) -> Tensor:
    return torch.empty_like(joined, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradient(ctx: Any, gradient: Tensor) -> Tensor:
    return _swiglu_backward(gradient, *ctx.saved_tensors)


swiglu.register_autograd(_gradient, setup_context=_keep)


def _cut(size: int) -> tuple[int, dict[str, int]]:
    """Programs of a position, and how they are cut."""
    block = min(BLOCK, next_power(size))
    return -(-size // block), {"block": block, "num_warps": max(1, block // _WARP_NUMBERS)}


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import layer_kernels

    return layer_kernels
