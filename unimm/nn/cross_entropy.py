"""Cross-entropy over a large vocabulary, of which little or nothing is held in float32.

An 8B model's vocabulary takes 0.6 MB a position in float32, which PyTorch's loss would keep three
times. On a GPU our kernels read the logits as they are. The head is asked once, whatever the number
of positions: under ZeRO 3 every call of it is one of all ranks.

Legend: ``N`` positions, ``V`` vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import wrap_torch_function
from torch.utils._triton import has_triton_package
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 2**29
"""Made float32 at once, 2 GiB; if there are more it is done in stretches, and again backward."""
BLOCK = (8192, 8)
"""Logits that a program of the kernels looks at together, and its warps."""


@wrap_torch_function(lambda logits, labels: (logits, labels))  # a planner counts a GPU's bytes
def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """How unexpected each token is.

    Args:
        logits: ``(N, V)`` in any precision.
        labels: ``(N,)`` int64, all of the vocabulary.

    Returns:
        ``(N,)`` float32, nats.
    """
    if logits.is_cuda and _has_kernels():
        return losses_by_kernel(logits, labels)
    most = max(1, MOST_LOGITS // logits.shape[-1])
    if len(logits) <= most:
        return _losses(logits, labels)
    parts = zip(logits.split(most), labels.split(most), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_losses(*part) for part in parts])
    found = [
        checkpoint(_losses, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(found)  # pyright: ignore[reportArgumentType]


def losses_by_kernel(logits: Tensor, labels: Tensor) -> Tensor:
    """As ``token_losses``, by our kernels: arithmetic is float32, but nothing is kept in it.

    A label outside of the vocabulary costs NaN, which a run does not train on.
    """
    return _kernel_losses(logits, labels)[0]


@torch.compiler.assume_constant_result  # a compiler does not look into it
def _has_kernels() -> bool:
    return has_triton_package()


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import loss_kernels

    return loss_kernels


@torch.library.custom_op("unimm::token_losses", mutates_args=())
def _kernel_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Losses and the logarithms of the sums of exponentials, ``(N,)`` float32 each."""
    logits, labels = logits.contiguous(), labels.contiguous()
    losses, sums = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
    if len(logits):
        block, num_warps = BLOCK
        _kernels().losses_kernel[(len(logits),)](
            logits, labels, losses, sums, logits.shape[1], block=block, num_warps=num_warps
        )
    return losses, sums


@torch.library.custom_op("unimm::token_losses_backward", mutates_args=())
def _kernel_gradient(gradient: Tensor, logits: Tensor, labels: Tensor, sums: Tensor) -> Tensor:
    """Gradient of the logits ``(N, V)``, in their number format, from that of the losses."""
    gradient, logits, labels = (x.contiguous() for x in (gradient, logits, labels))
    found = torch.empty_like(logits)
    if len(logits):
        block, num_warps = BLOCK
        grid = (len(logits), -(-logits.shape[1] // block))
        _kernels().gradient_kernel[grid](
            *(gradient, logits, labels, sums, found, logits.shape[1]),
            block=block,
            num_warps=num_warps,
        )
    return found


@_kernel_losses.register_fake
def _(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    losses, sums = (logits.new_empty(len(logits), dtype=torch.float32) for _ in range(2))
    return losses, sums


@_kernel_gradient.register_fake
def _(gradient: Tensor, logits: Tensor, labels: Tensor, sums: Tensor) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])


def _backward(ctx: Any, gradient: Tensor, _sums: Tensor) -> tuple[Tensor, None]:
    return _kernel_gradient(gradient, *ctx.saved_tensors), None


_kernel_losses.register_autograd(_backward, setup_context=_keep)
