"""VAR's multi-scale residual quantizer: a picture as grids of codes from coarse to fine.

The residual of the latents is averaged down to a scale's grid, quantized, brought back up and
subtracted; the next scale sees what is left (Tian et al., 2024, "Visual Autoregressive Modeling",
Algorithms 1 and 2). The sum over scales is what the decoder draws, and the sum of the scales so
far, averaged down to the next grid, is what a trunk predicts the next scale from.

Shapes: B batch, C latent channels, h side of the finest grid, n side of one scale.
"""

import itertools
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimm.tokenizer.quantizer import Quantizer

NUM_CONVOLUTIONS = 4
RATIO = 0.5  # share of the convolution in what a scale adds: VAR's ``quant_resi``


def schedule_name(scales: Sequence[int]) -> str:
    """Name a pyramid by the sides of its grids: ``1-2-4-8-16``."""
    return "-".join(map(str, scales))


def parse_schedule(name: str) -> tuple[int, ...]:
    """Give the sides that a pyramid's name lists.

    Raises:
        ValueError: if it is no rising list of two or more sides.
    """
    parts = name.split("-")
    scales = tuple(int(part) for part in parts if part.isdecimal())
    is_rising = all(a < b for a, b in itertools.pairwise(scales))
    if len(scales) != len(parts) or len(scales) < 2 or scales[0] < 1 or not is_rising:
        raise ValueError(
            f"{name!r} is no schedule: give 'single', or a pyramid as rising sides of its grids, "
            "such as 1-2-4-8-16"
        )
    return scales


class ScaleCodes(NamedTuple):
    """What quantizing scale by scale gives; one entry a scale, coarse to fine.

    Attributes:
        codes: ``(B, n, n)`` int64.
        seen: ``(B, C, n, n)`` what each lookup saw: the residual, averaged down.
        sums: ``(B, C, h, h)`` the sum up to this scale; the last one stands for the picture.
    """

    codes: tuple[Tensor, ...]
    seen: tuple[Tensor, ...]
    sums: tuple[Tensor, ...]


class Pyramid(nn.Module):
    """Quantizes latents scale by scale, for any schedule whose finest grid is the latents' own.

    Args:
        dim: channels C of the latents.
        num_convolutions: 3x3 convolutions that mend what upsampling blurs; a scale uses the one
            whose tick in [0, 1] is nearest to its own place (VAR's partially shared phi).
        ratio: how much of what a scale adds goes through its convolution.
    """

    def __init__(
        self, dim: int, *, num_convolutions: int = NUM_CONVOLUTIONS, ratio: float = RATIO
    ) -> None:
        super().__init__()
        self.ratio = ratio
        self.convolutions = nn.ModuleList(
            nn.Conv2d(dim, dim, 3, padding=1) for _ in range(num_convolutions)
        )
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv2d) and convolution.bias is not None
            nn.init.dirac_(convolution.weight)  # at first a scale adds what it looked up
            nn.init.zeros_(convolution.bias)

    def convolution_of(self, scale: int, num_scales: int) -> int:
        """Index of the convolution that a scale uses (VAR's ``PhiPartiallyShared``)."""
        count = len(self.convolutions)
        margin = 1 / 3 / count if count == 4 else 1 / 2 / count
        ticks = np.linspace(margin, 1 - margin, count)
        # Of ten scales the third lies between two ticks: rounding decides, and must be VAR's.
        return int(np.abs(ticks - scale / (num_scales - 1)).argmin())

    def grow(self, vectors: Tensor, scale: int, scales: Sequence[int]) -> Tensor:
        """What one scale adds to the sum.

        Args:
            vectors: ``(B, C, n, n)`` of the scale's codes.
            scale: number of the scale, from 0.
            scales: sides of all grids.

        Returns:
            ``(B, C, h, h)`` float32.
        """
        convolution = self.convolutions[self.convolution_of(scale, len(scales))]
        with torch.autocast(vectors.device.type, enabled=False):
            large = enlarge(vectors.float(), scales[-1])
            return torch.lerp(large, convolution(large), self.ratio)

    @staticmethod
    def shrink(total: Tensor, side: int) -> Tensor:
        """Average ``(B, C, h, h)`` down to ``(B, C, n, n)``, float32."""
        if total.shape[-1] == side:
            return total.float()
        return F.adaptive_avg_pool2d(total.float(), side)

    def encode(self, latents: Tensor, scales: Sequence[int], quantizer: Quantizer) -> ScaleCodes:
        """Quantize latents ``(B, C, h, h)`` scale by scale.

        Gradients reach the convolutions through ``sums``; the latents and the codebook get none.

        Raises:
            ValueError: if the finest scale is not the grid of the latents.
        """
        check_grid(scales, latents.shape[-2], latents.shape[-1])
        rest = latents.detach().float()
        total = torch.zeros_like(rest)
        codes: list[Tensor] = []
        seen: list[Tensor] = []
        sums: list[Tensor] = []
        for scale, side in enumerate(scales):
            small = self.shrink(rest, side)  # (B, C, n, n)
            found = quantizer.nearest(small)  # (B, n, n)
            added = self.grow(quantizer.embed(found).detach(), scale, scales)  # (B, C, h, h)
            rest, total = rest - added.detach(), total + added
            codes.append(found)
            seen.append(small)
            sums.append(total)
        return ScaleCodes(tuple(codes), tuple(seen), tuple(sums))

    def sums(self, codes: Sequence[Tensor], scales: Sequence[int], quantizer: Quantizer) -> Tensor:
        """Running sums of the first codes of a picture, stacked ``(B, len(codes), C, h, h)``."""
        large = enlarge_codes(codes, scales[-1], quantizer)  # (S, B, C, h, h)
        used = [self.convolution_of(scale, len(scales)) for scale in range(len(codes))]
        numbers = sorted(set(used))  # finer scales use later ones
        parts = large.split([used.count(number) for number in numbers])
        with torch.autocast(large.device.type, enabled=False):
            mended = [
                self.convolutions[number](part.flatten(0, 1))
                for number, part in zip(numbers, parts, strict=True)
            ]
            added = torch.lerp(large, torch.cat(mended).view_as(large), self.ratio)
        return added.cumsum(0).transpose(0, 1)

    def inputs(
        self, codes: Sequence[Tensor], scales: Sequence[int], quantizer: Quantizer
    ) -> tuple[Tensor, ...]:
        """What each scale but the first is predicted from: the sum of the coarser ones.

        Args:
            codes: ``(B, n, n)`` each, the finest not read.
            scales: sides of all grids.
            quantizer: holds the codebook.

        Returns:
            ``(B, C, n, n)`` for the second to the last scale.
        """
        sums = self.sums(codes[: len(scales) - 1], scales, quantizer)
        return tuple(self.shrink(sums[:, k], side) for k, side in enumerate(scales[1:]))


def enlarge(x: Tensor, side: int) -> Tensor:
    """Bring ``(B, C, n, n)`` float32 up to ``(B, C, side, side)``, bicubic.

    For many small grids PyTorch's kernel leaves a GPU idle; two products do not. They are exact to
    float32, where the kernel rounds a little more.
    """
    if x.shape[-1] == side:
        return x
    if not x.is_cuda or torch.is_grad_enabled():
        return F.interpolate(x, size=(side, side), mode="bicubic")
    return enlarge_by_products(x, side)


def enlarge_by_products(x: Tensor, side: int) -> Tensor:
    """The same as products with one matrix for rows and columns."""
    matrix = _bicubic_matrix(x.shape[-1], side, x.device)
    return (matrix @ x.double() @ matrix.t()).float()


def enlarge_codes(codes: Sequence[Tensor], side: int, quantizer: Quantizer) -> Tensor:
    """Bring the vectors of codes ``(B, n, n)`` of ``S`` scales up to ``(S, B, C, side, side)``."""
    if codes[0].is_cuda and not torch.is_grad_enabled():
        return enlarge_codes_by_products(codes, side, quantizer)
    return torch.stack([enlarge(quantizer.embed(grid).float(), side) for grid in codes])


def enlarge_codes_by_products(codes: Sequence[Tensor], side: int, quantizer: Quantizer) -> Tensor:
    """The same as two products for all scales: a GPU is told of a few kernels, not of hundreds."""
    device, sides = codes[0].device, tuple(grid.shape[-1] for grid in codes)
    cells, matrices = _padded_scales(sides, side, device)
    flat = torch.cat([grid.flatten(1) for grid in codes], dim=1)  # (B, T)
    padded = flat.t().index_select(0, cells)  # (S side side, B)
    vectors = F.embedding(padded, quantizer.codebook_vectors).double()  # (..., B, C)
    shape = (len(codes), side, side, *vectors.shape[1:])
    rows = matrices @ vectors.view(len(codes), side, -1)  # (S, side, side B C)
    found = matrices[:, None] @ rows.view(len(codes), side, side, -1)  # (S, side, side, B C)
    found = found.view(shape).permute(0, 3, 4, 1, 2)  # (S, B, C, side, side)
    return found.to(torch.float32, memory_format=torch.contiguous_format)


@lru_cache(maxsize=16)
def _padded_scales(
    sides: tuple[int, ...], side: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Grids of several sizes as grids of one size, and what enlarges them.

    Returns:
        For each cell ``(S side side,)`` of the padded grids its place among the codes of all
        scales, any place for padding; and the matrices ``(S, side, side)`` float64, which
        multiply padding with zeros.
    """
    with torch.inference_mode(False), torch.no_grad():
        cells = torch.zeros(len(sides), side, side, dtype=torch.int64)
        matrices = torch.zeros(len(sides), side, side, dtype=torch.float64)
        first = 0
        for scale, n in enumerate(sides):
            cells[scale, :n, :n] = torch.arange(first, first + n * n).view(n, n)
            matrices[scale, :, :n] = _bicubic_matrix(n, side, torch.device("cpu"))
            first += n * n
        return cells.flatten().to(device), matrices.to(device)


@lru_cache(maxsize=256)
def _bicubic_matrix(side: int, new_side: int, device: torch.device) -> Tensor:
    """What a bicubic enlargement of a row multiplies it with, ``(new_side, side)`` float64."""
    with torch.inference_mode(False), torch.no_grad():
        rows = torch.eye(side, dtype=torch.float64)[None, :, :, None]  # (1, side, side, 1)
        found = F.interpolate(rows, size=(new_side, 1), mode="bicubic")[0, :, :, 0]
        return found.t().contiguous().to(device)


def check_grid(scales: Sequence[int], height: int, width: int) -> None:
    """Refuse a grid that the schedule does not end in.

    Raises:
        ValueError: naming both.
    """
    if (height, width) != (scales[-1], scales[-1]):
        raise ValueError(
            f"schedule {schedule_name(scales)} ends in {scales[-1]}x{scales[-1]} codes, but the "
            f"picture has {height}x{width}: resize it, or give a schedule that ends in its grid"
        )
