"""Matrices that read the same input, side by side in memory: one product instead of several.

A product of some hundred rows with a small matrix leaves most of a GPU idle.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


def lay_together(modules: Sequence[nn.Linear]) -> None:
    """Move the weights of layers behind each other; the layers stay what they are."""
    weights = [module.weight for module in modules]
    joined = torch.cat([weight.data for weight in weights])
    for weight, part in zip(weights, joined.split([len(w) for w in weights]), strict=True):
        weight.data = part


def products(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``x @ weight.T`` for each weight, as one product if they lie together.

    Args:
        x: ``(..., D)``.
        weights: ``(N_i, D)`` each.

    Returns:
        ``(..., N_i)`` each; their rows may lie apart.
    """
    joined = _joined(weights)
    if joined is None:
        return tuple(functional.linear(x, weight) for weight in weights)
    return functional.linear(x, joined).split([len(weight) for weight in weights], dim=-1)


def _joined(weights: Sequence[Tensor]) -> Tensor | None:
    """All of them as one matrix, or None if they do not follow each other in memory."""
    first, columns = weights[0], weights[0].shape[1]
    at = first.storage_offset()
    for weight in weights:
        is_next = weight.storage_offset() == at and weight.is_contiguous()
        is_same = weight.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not is_next or not is_same or weight.shape[1] != columns:
            return None
        at += weight.numel()
    return first.detach().as_strided((sum(map(len, weights)), columns), (columns, 1))
