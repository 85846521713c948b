"""Kernels of a GPU by what they keep for the backward, for tensors without data, on any machine."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch._decomp import decompositions
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

import unimm.nn.transformer  # noqa: F401, makes the operators that are named below
from unimm.nn.cross_entropy import losses_by_kernel, token_losses

Counting = Callable[[bool], AbstractContextManager[None]]
"""Says whether tensors made within it are there as a whole, or only pass through a kernel."""


@torch.library.custom_op("unimm::attention_sizes", mutates_args=())
def _attention(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Result and log-sum-exp, which a flash kernel keeps beside its inputs."""
    raise NotImplementedError(f"only sizes are known, not values; query {tuple(query.shape)}")


@torch.library.custom_op("unimm::attention_sizes_backward", mutates_args=())
def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    raise NotImplementedError(f"only sizes are known, not values; query {tuple(query.shape)}")


@_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(query), query.new_empty(query.shape[:-1], dtype=torch.float32)


@_attention_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _attention_gradient(ctx: Any, gradient: Tensor, _sums: Tensor) -> Any:
    return _attention_backward(gradient, *ctx.saved_tensors)


_attention.register_autograd(_attention_gradient, setup_context=_keep)

WHOLE = frozenset(
    (
        *(torch.ops.unimm.attention_sizes, torch.ops.unimm.attention_sizes_backward),
        *(torch.ops.unimm.span_attention, torch.ops.unimm.span_attention_backward),
        *(torch.ops.unimm.joined_attention, torch.ops.unimm.joined_attention_backward),
        *(torch.ops.unimm.add_norm, torch.ops.unimm.add_norm_backward),
        *(torch.ops.unimm.swiglu, torch.ops.unimm.swiglu_backward),
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward,
    )
)
"""Kernels that no compiler generates, but for products."""


def attention_sizes(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Tensor:
    """A kernel for ``Visibility`` that keeps what flash attention keeps, and computes nothing."""
    return _attention(query, key, value)[0]


class _RMSNorm(torch.autograd.Function):
    """The norm as one kernel, which keeps its input and a number for each row."""

    @staticmethod
    def forward(
        ctx: Any, counting: Counting, x: Tensor, shape: Any, weight: Tensor, eps: float
    ) -> Tensor:
        """``x`` in any shape."""
        with counting(False):
            out, scale = decompositions._fused_rms_norm(x, list(shape), weight, eps)
        ctx.counting, ctx.shape = counting, list(shape)
        ctx.save_for_backward(x, weight, scale)
        return out.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # pyright: ignore
        """Gradients of input and weight."""
        x, weight, scale = ctx.saved_tensors
        with ctx.counting(False):
            found: Any = decompositions._fused_rms_norm_backward(
                gradient, x, ctx.shape, scale, weight, [True, True]
            )
        return None, found[0].clone(), None, found[1].clone(), None


class GpuKernels(TorchFunctionMode):
    """Norms and losses on tensors of the CPU take the format, and keep what they keep, on a GPU.

    Only there autocast computes norms in float32, and only there they are one kernel, as the
    cross-entropy is. No other function of our models differs.

    Args:
        is_mixed: whether autocast is on.
        counting: of the bytes that live.
    """

    def __init__(self, *, is_mixed: bool, counting: Counting) -> None:
        super().__init__()
        self._is_mixed, self._counting = is_mixed, counting

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is token_losses:
            return losses_by_kernel(*args, **kwargs)
        if func not in (functional.layer_norm, functional.rms_norm):
            return func(*args, **kwargs)
        if self._is_mixed:
            args, kwargs = tree_map_only(Tensor, Tensor.float, (args, kwargs))
        if func is functional.layer_norm:
            return func(*args, **kwargs)
        x, shape = args
        return _RMSNorm.apply(self._counting, x, shape, kwargs["weight"], kwargs["eps"])
