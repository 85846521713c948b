"""Rotary positions on three axes (time, row, column), interleaved over the frequencies.

Frequency ``f`` turns by axis ``f mod 3``. Text has the same position on all axes, so text alone is
exactly one-dimensional RoPE (Su et al., 2021) and pretrained language models load unchanged.
"""

import torch
from torch import Tensor

NUM_AXES = 3


def rope_cos_sin(position_ids: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles.

    Always computed in float32: bf16 keeps only 535 of 1,200 positions apart. Nothing is kept in a
    buffer, so that casting a model to bf16 cannot cast the frequencies.

    Args:
        position_ids: ``(B, n, 3)`` int64.
        head_dim: width of a head, even.
        base: of the geometric series of frequencies.

    Returns:
        Two ``(B, 1, n, head_dim)`` float32 tensors, the half of frequencies repeated twice
        (the "rotate half" layout of Llama in ``transformers``).
    """
    device = position_ids.device
    half = torch.arange(head_dim // 2, device=device, dtype=torch.float32)
    frequencies = base ** (-2.0 * half / head_dim)  # (head_dim / 2,)
    axis = torch.arange(head_dim // 2, device=device) % NUM_AXES
    angles = position_ids.float()[..., axis] * frequencies  # (B, n, head_dim / 2)
    angles = torch.cat([angles, angles], dim=-1)[:, None]  # (B, 1, n, head_dim)
    return angles.cos(), angles.sin()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate queries or keys ``(B, H, n, head_dim)`` by the angles of their positions."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x.float() * cos + turned * sin).to(x.dtype)
