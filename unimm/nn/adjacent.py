"""Matrices that read the same input, side by side in memory: one product instead of several.

A product of some hundred rows with a small matrix leaves most of a GPU idle.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def lay_together(modules: Sequence[nn.Linear]) -> None:
    """Move the weights of layers behind each other; the layers stay what they are."""
    _move_together([module.weight for module in modules])
    biases = [module.bias for module in modules if module.bias is not None]
    if biases:
        _move_together(biases)


def products(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor] = ()
) -> tuple[Tensor, ...]:
    """``x @ weight.T + bias`` for each weight, as one product if they lie together.

    No gradient reaches weights that lie together.

    Args:
        x: ``(..., D)``.
        weights: ``(N_i, D)`` each.
        biases: ``(N_i,)`` each, or none at all.

    Returns:
        ``(..., N_i)`` each; their rows may lie apart.
    """
    joined, bias = _joined(weights), _joined(biases) if biases else None
    if joined is None or (biases and bias is None):
        pairs = zip(weights, biases or [None] * len(weights), strict=True)
        return tuple(functional.linear(x, weight, bias) for weight, bias in pairs)
    return functional.linear(x, joined, bias).split([len(weight) for weight in weights], dim=-1)


def joined_product(x: Tensor, weights: Sequence[Tensor], *, is_joined: bool) -> Tensor:
    """``x @ weight.T`` for each weight, side by side in one tensor; gradients reach all.

    Args:
        x: ``(..., D)``.
        weights: ``(N_i, D)`` each.
        is_joined: put the weights together for one product, which a compiler does while it changes
            their format; else the results.

    Returns:
        ``(..., sum of N_i)``.
    """
    if is_joined:
        return functional.linear(x, torch.cat(tuple(weights)))
    return torch.cat([functional.linear(x, weight) for weight in weights], dim=-1)


def _move_together(parts: Sequence[Tensor]) -> None:
    joined = torch.cat([part.data for part in parts])
    for part, moved in zip(parts, joined.split([len(x) for x in parts]), strict=True):
        part.data = moved


def _joined(parts: Sequence[Tensor]) -> Tensor | None:
    """All of them as one tensor, or None if they do not follow each other in memory."""
    first = parts[0]
    at = first.storage_offset()
    for part in parts:
        is_next = part.storage_offset() == at and part.is_contiguous()
        is_same = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not is_next or not is_same or part.shape[1:] != first.shape[1:]:
            return None
        at += part.numel()
    return first.detach().as_strided((sum(map(len, parts)), *first.shape[1:]), first.stride())
