"""Small parts: tables of embeddings; times, scalars, patches and zero layers of denoisers."""

import math
from collections.abc import Callable, Hashable

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.rows import add_rows

NUM_FREQUENCIES = 128
_TIME_SCALE = 1000.0  # of the longest period 10,000: times in [0, 1] would look alike unscaled

MOST_KEPT_BYTES = 64 * 2**20
"""Of fixed embeddings that are kept for inference; what comes later is made each time.

Nothing is dropped to make room: recorded CUDA graphs read it where it lies.
"""

_all_kept: dict[Hashable, Tensor] = {}


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
    angles = values[..., None] * kept(_frequencies, values.device)
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


def grid_sinusoid(
    height: int, width: int, dim: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Fixed sine-cosine embedding of a grid's places, half for rows, half for columns (DiT).

    Returns:
        ``(height * width, dim)``, raster order; inference keeps it, so nobody may write to it.
    """
    return kept(_grid_sinusoid, height, width, dim, device, dtype)


def _grid_sinusoid(
    height: int, width: int, dim: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    quarter = torch.arange(dim // 4, device=device, dtype=torch.float32)
    frequencies = 10_000 ** (-quarter / (dim // 4))
    places = torch.arange(height * width, device=device)[:, None]
    rows, columns = places // width * frequencies, places % width * frequencies
    parts = [rows.sin(), rows.cos(), columns.sin(), columns.cos()]
    return torch.cat(parts, dim=1).to(dtype)


def _frequencies(device: torch.device) -> Tensor:
    order = torch.arange(NUM_FREQUENCIES, device=device, dtype=torch.float32)
    return torch.exp(-math.log(10_000) * order / NUM_FREQUENCIES)


def kept(make: Callable[..., Tensor], *key: Hashable) -> Tensor:
    """``make(*key)``, at inference kept from one evaluation to the next.

    A step of training makes it anew: that is little of it, and it may be a step of fake tensors.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return make(*key)
    if (make, key) in _all_kept:
        return _all_kept[make, key]
    with torch.inference_mode(False), torch.no_grad():
        made = make(*key)
    # What a recording makes is filled only when that is repeated; fake tensors hold nothing.
    is_recording = made.is_cuda and torch.cuda.is_current_stream_capturing()
    has_room = sum(kept.nbytes for kept in _all_kept.values()) + made.nbytes <= MOST_KEPT_BYTES
    if is_recording or type(made) is not Tensor or not has_room:
        return made
    return _all_kept.setdefault((make, key), made)
