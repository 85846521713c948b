"""What may have happened to a picture before a judge sees it: blur, few pixels, noise, JPEG.

All functions take pixels ``(B, 3, H, W)`` in [-1, 1] and one strength a picture ``(B,)``, and give
pixels of the same shape and range. Half of the detector's training pictures go through them, since
it judges what tokenizers and trunks draw, not clean renders.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional

Corruption = Callable[[Tensor, Tensor, Generator], Tensor]


def blur(pixels: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """Gaussian blur; the strength is its standard deviation in pixels, at most 3."""
    del generator
    batch, _, height, width = pixels.shape
    offsets = torch.arange(-6, 7, device=pixels.device, dtype=pixels.dtype)
    line = (-offsets.square() / (2 * strength[:, None].clamp(min=1e-2).square())).exp()
    line = (line / line.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None]  # (3 B, 1, 13)
    planes = functional.pad(pixels.reshape(1, 3 * batch, height, width), (6, 6, 6, 6), "reflect")
    planes = functional.conv2d(planes, line[:, :, None], groups=3 * batch)
    planes = functional.conv2d(planes, line[..., None], groups=3 * batch)
    return planes.reshape(pixels.shape)


def shrink(pixels: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """Fewer pixels and back: a batch shares the rounded mean strength, the factor of shrinking."""
    del generator
    height, width = pixels.shape[-2:]
    factor = max(1.0, float(strength.mean()))
    size = (max(8, round(height / factor)), max(8, round(width / factor)))
    small = functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)
    return functional.interpolate(small, size=(height, width), mode="bicubic").clamp(-1, 1)


def add_noise(pixels: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """White Gaussian noise; the strength is its standard deviation, of a range of 2."""
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device, dtype=pixels.dtype)
    return (pixels + strength.view(-1, 1, 1, 1) * noise).clamp(-1, 1)


def compress(pixels: Tensor, strength: Tensor, generator: Generator) -> Tensor:
    """Round block cosines as JPEG does; the strength multiplies its standard luminance table.

    Colour planes share the table and keep their resolution, which is milder than JPEG's halving.
    """
    del generator
    transform, table, colour = (x.to(pixels) for x in _jpeg_tables())
    planes = torch.einsum("ij,bjhw->bihw", colour, pixels * 127.5)
    blocks = planes.unfold(2, 8, 8).unfold(3, 8, 8)  # (B, 3, h, w, 8, 8)
    cosines = transform @ blocks @ transform.T
    step = table * strength.view(-1, 1, 1, 1, 1, 1)
    blocks = transform.T @ ((cosines / step).round() * step) @ transform
    planes = blocks.transpose(3, 4).reshape(planes.shape)
    inverse = torch.linalg.inv(colour.float()).to(pixels.dtype)
    return (torch.einsum("ij,bjhw->bihw", inverse, planes) / 127.5).clamp(-1, 1)


@cache
def _jpeg_tables() -> tuple[Tensor, Tensor, Tensor]:
    """The 8-point cosine transform, JPEG's luminance table, and RGB to YCbCr."""
    k, n = torch.arange(8.0)[:, None], torch.arange(8.0)[None]
    transform = torch.cos((2 * n + 1) * k * torch.pi / 16) / 2
    transform[0] /= 2**0.5
    table = torch.tensor(
        [
            [16, 11, 10, 16, 24, 40, 51, 61],
            [12, 12, 14, 19, 26, 58, 60, 55],
            [14, 13, 16, 24, 40, 57, 69, 56],
            [14, 17, 22, 29, 51, 87, 80, 62],
            [18, 22, 37, 56, 68, 109, 103, 77],
            [24, 35, 55, 64, 81, 104, 113, 92],
            [49, 64, 78, 87, 103, 121, 120, 101],
            [72, 92, 95, 98, 112, 100, 103, 99],
        ],
        dtype=torch.float32,
    )
    colour = torch.tensor([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return transform, table, colour


CORRUPTIONS: dict[str, tuple[Corruption, float, float]] = {
    "blur": (blur, 0.3, 1.6),
    "shrink": (shrink, 1.3, 2.6),
    "noise": (add_noise, 0.02, 0.2),
    "compress": (compress, 0.5, 3.0),
}
"""Name -> function, mildest and strongest strength in training."""


def corrupt(
    pixels: Tensor,
    generator: Generator,
    *,
    reconstruct: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Corrupt each picture of a batch in one way, equal shares of the batch in each.

    Args:
        pixels: ``(B, 3, H, W)`` float in [-1, 1].
        generator: on the pixels' device; draws the strengths.
        reconstruct: an image tokenizer's encoder and decoder; takes half of the batch if given.

    Returns:
        ``(B, 3, H, W)``, pictures in the same order.
    """
    batch = pixels.shape[0]
    num_reconstructed = batch // 2 if reconstruct is not None else 0
    parts: list[Tensor] = []
    if reconstruct is not None and num_reconstructed:
        parts.append(reconstruct(pixels[:num_reconstructed]).to(pixels.dtype))
    rest = pixels[num_reconstructed:].tensor_split(len(CORRUPTIONS))
    for part, (function, low, high) in zip(rest, CORRUPTIONS.values(), strict=True):
        if len(part):
            draw = torch.rand(len(part), generator=generator, device=pixels.device)
            parts.append(function(part, low + (high - low) * draw, generator))
    return torch.cat(parts)
