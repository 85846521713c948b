"""GroupNorm followed by SiLU, in two passes of our own on a GPU: half of a decoder's time else."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._triton import has_triton_package

_TILE = 4096  # numbers of a tile
_PROGRAMS = 1024  # that sum; more than a GPU runs at once


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """``silu(norm(x))`` of ``(B, C, h, w)``; training and other layouts take PyTorch's kernels."""
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    is_able = x.is_cuda and is_last and has_triton_package()
    if not is_able or torch.is_grad_enabled():
        return F.silu(norm(x))
    return run_kernels(x, norm)


def run_kernels(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """The same by the kernels, for ``x`` with channels last and a power of two of groups."""
    from unimm.tokenizer import norm_kernels

    kernels: Any = norm_kernels
    batch, channels, height, columns = x.shape
    groups, places = norm.num_groups, height * columns
    width = channels // groups
    padded = 1 << (width - 1).bit_length()
    block = max(1, _TILE // (groups * padded))
    parts = 1 << max(0, min(6, (_PROGRAMS // batch).bit_length() - 1))
    part = -(-places // parts)
    sizes = {"G": groups, "width": width, "padded": padded, "block": block}
    sums = torch.empty(batch, parts, 2, groups, device=x.device)
    out = torch.empty_like(x)  # channels last, too
    kernels.sum_kernel[(batch, parts)](x, sums, places, part, **sizes)
    kernels.apply_kernel[(batch, parts)](
        x, sums, norm.weight, norm.bias, out, places, part, norm.eps, parts=parts, **sizes
    )
    return out
