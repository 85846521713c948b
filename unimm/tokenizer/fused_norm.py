"""What lies between a decoder's convolutions, in few passes of our own kernels on a GPU.

GroupNorm needs the sums of a whole picture before it can begin. They are taken while the numbers
are written, so a block of the decoder reads and writes its grid 8 times beside its convolutions.

Shapes: B batch, C channels, h w grid, S parts that a picture is summed in. All tensors have their
channels last in memory.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._triton import has_triton_package

_TILE = 4096  # numbers of a tile
_MOST_CHANNELS = 256  # of a tile
_PROGRAMS = 2048  # that sum; a few times what a GPU runs at once
_MOST_PARTS = 512


class Settled(NamedTuple):
    """Numbers that are whole.

    Attributes:
        x: ``(B, C, h, w)``.
        sums: ``(B, S, 2, C)`` float32, each channel's sums and sums of squares.
    """

    x: Tensor
    sums: Tensor


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """``silu(norm(x))`` of ``(B, C, h, w)``; training and other layouts take PyTorch's kernels."""
    is_last = x.is_contiguous(memory_format=torch.channels_last)
    if not is_last or not has_fast_path(x):
        return F.silu(norm(x))
    return apply_norm(x, sum_channels(x), norm)


def has_fast_path(x: Tensor) -> bool:
    """Whether the kernels can be used: on a GPU, where no gradient is asked for."""
    return x.is_cuda and has_triton_package() and not torch.is_grad_enabled()


def settle(
    x: Tensor, bias: Tensor, residual: Tensor | None = None, *, is_doubled: bool = False
) -> Settled:
    """``x + bias + residual``.

    Args:
        x: what a convolution without its bias gave, ``(B, C, h, w)``.
        bias: ``(C,)``.
        residual: as ``x``.
        is_doubled: write each place four times, ``(B, C, 2 h, 2 w)``: nearest-neighbour upsampling.
    """
    batch, channels, height, columns = x.shape
    scale = 2 if is_doubled else 1
    shape = (batch, channels, scale * height, scale * columns)
    out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return Settled(out, _sum(x, bias, residual, out, copies=scale**2))


def sum_channels(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Sums of ``x + bias``, ``(B, S, 2, C)``."""
    return _sum(x, bias, None, x, copies=0)


def apply_norm(
    x: Tensor,
    sums: Tensor,
    norm: nn.GroupNorm,
    *,
    bias: Tensor | None = None,
    has_silu: bool = True,
) -> Tensor:
    """``silu(norm(x + bias))``, ``(B, C, h, w)``.

    Args:
        x: ``(B, C, h, w)``.
        sums: of ``x + bias``.
        norm: group normalisation.
        bias: ``(C,)``.
        has_silu: whether SiLU follows.
    """
    batch, channels, height, columns = x.shape
    places, width = height * columns, channels // norm.num_groups
    affine = torch.empty(batch, 2, channels, device=x.device)
    _kernels().affine_kernel[(norm.num_groups, batch)](
        sums,
        norm.weight,
        norm.bias,
        norm.bias if bias is None else bias,
        affine,
        places,
        sums.shape[1],
        channels,
        width,
        norm.eps,
        padded=1 << (width - 1).bit_length(),
        block=32,
        has_bias=bias is not None,
    )
    out = torch.empty_like(x)  # channels last, too
    chunk, block = _tile(channels)
    grid = (-(-places // block) * (channels // chunk), batch)
    _kernels().apply_kernel[grid](
        x, affine, out, places, channels, block=block, chunk=chunk, has_silu=has_silu
    )
    return out


def _sum(
    x: Tensor, bias: Tensor | None, residual: Tensor | None, out: Tensor, *, copies: int
) -> Tensor:
    batch, channels, height, columns = x.shape
    chunk, block = _tile(channels)
    places, chunks = height * columns, channels // chunk
    tiles = -(-places // block)
    parts = min(tiles, max(1, _PROGRAMS // (batch * chunks)), _MOST_PARTS)
    part = -(-tiles // parts) * block
    parts = -(-places // part)  # none is empty
    sums = torch.empty(batch, parts, 2, channels, device=x.device)
    _kernels().settle_kernel[(parts * chunks, batch)](
        x,
        x if bias is None else bias,
        x if residual is None else residual,
        out,
        sums,
        places,
        columns,
        part,
        parts,
        channels,
        block=block,
        chunk=chunk,
        has_bias=bias is not None,
        has_residual=residual is not None,
        copies=copies,
    )
    return sums


def _tile(channels: int) -> tuple[int, int]:
    """Channels of a tile, a power of two that divides them all, and its places."""
    chunk = min(channels & -channels, _MOST_CHANNELS)
    return chunk, _TILE // chunk


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.tokenizer import norm_kernels

    return norm_kernels
