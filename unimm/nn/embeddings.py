"""Small parts: tables of embeddings; times, scalars, patches and zero layers of denoisers."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.rows import add_rows

NUM_FREQUENCIES = 128
_TIME_SCALE = 1000.0  # of the longest period 10,000: times in [0, 1] would look alike unscaled


class Embedding(nn.Embedding):
    """A table of embeddings, which one of our kernels can read as well.

    It does so in a call of the module: under ZeRO 3 the weights are there for no longer.
    """

    def forward(
        self, ids: Tensor, x: Tensor | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Embed ids ``(...)`` to ``(..., D)``.

        Args:
            ids: of rows; with ``dtype`` ``(N,)``, and -1 for zeros.
            x: ``(N, D)``, what is added to, with ``dtype``.
            dtype: of the result, which our kernel then makes.
        """
        return super().forward(ids) if dtype is None else add_rows(x, self.weight, ids, dtype)


class ZeroLinear(nn.Linear):
    """A linear layer that starts as zero.

    It zeroes itself in ``reset_parameters``: that also holds where weights are cut up as soon as a
    layer is built (ZeRO 3), and after any pass that resets every layer.
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


def sinusoid(values: Tensor) -> Tensor:
    """Cosines and sines of scalars ``(...)``, always float32: ``(..., 2 * NUM_FREQUENCIES)``."""
    assert values.dtype == torch.float32, f"times are float32 throughout, got {values.dtype}"
    order = torch.arange(NUM_FREQUENCIES, device=values.device, dtype=torch.float32)
    angles = values[..., None] * torch.exp(-math.log(10_000) * order / NUM_FREQUENCIES)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """Diffusion times, and micro-conditioning scalars beside them (SDXL), to a vector.

    Args:
        dim: width ``D``.
        num_scalars: further numbers that describe a picture, such as its original size.
    """

    def __init__(self, dim: int, num_scalars: int = 0) -> None:
        super().__init__()
        self.num_scalars = num_scalars
        self.input = nn.Linear(2 * NUM_FREQUENCIES, dim)
        self.output = nn.Linear(dim, dim)
        self.scalars = nn.Linear(2 * NUM_FREQUENCIES * num_scalars, dim) if num_scalars else None

    def forward(self, t: Tensor, scalars: Tensor | None = None) -> Tensor:
        """``t (B,)`` float32 in [0, 1] and ``scalars (B, num_scalars)`` float32 to ``(B, D)``."""
        dtype = self.input.weight.dtype
        hidden = self.input(sinusoid(_TIME_SCALE * t).to(dtype))
        if self.scalars is not None:
            assert scalars is not None and scalars.shape == (len(t), self.num_scalars)
            hidden = hidden + self.scalars(sinusoid(scalars).flatten(1).to(dtype))
        return self.output(functional.silu(hidden))


def to_patches(latents: Tensor, patch_size: int) -> Tensor:
    """Cut latents ``(B, C, h, w)`` into ``(B, n, C p p)``, raster order."""
    p = patch_size
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)


def from_patches(patches: Tensor, patch_size: int, height: int) -> Tensor:
    """Join patches ``(B, n, C p p)`` to latents ``(B, C, h, w)`` of ``height`` h."""
    p = patch_size
    return rearrange(patches, "b (h w) (c p q) -> b c (h p) (w q)", p=p, q=p, h=height // p)


def grid_sinusoid(height: int, width: int, dim: int, device: torch.device) -> Tensor:
    """Fixed sine-cosine embedding of a grid's places, half for rows, half for columns (DiT).

    Returns:
        ``(height * width, dim)`` float32, raster order.
    """
    quarter = torch.arange(dim // 4, device=device, dtype=torch.float32)
    frequencies = 10_000 ** (-quarter / (dim // 4))
    places = torch.arange(height * width, device=device)[:, None]
    rows, columns = places // width * frequencies, places % width * frequencies
    return torch.cat([rows.sin(), rows.cos(), columns.sin(), columns.cos()], dim=1)
