"""Heads on maps of features: one linear layer, or a small DPT, to depth or to classes.

Legend: ``B`` pictures, ``D`` width of a map, ``h w`` its grid, ``O`` output channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HeadName = Literal["linear", "dpt"]
_UPSAMPLED = 4  # DINOv2: outputs are predicted on a grid four times as fine


@dataclass(frozen=True, kw_only=True)
class DenseHeadConfig:
    """A dense head.

    Attributes:
        kind: ``linear``, one 1x1 convolution on all layers side by side (DINOv2), or ``dpt``
            (Ranftl et al., 2021), which fuses layers coarse to fine.
        width: channels of a ``dpt``.
    """

    kind: HeadName = "linear"
    width: int = 96

    def build(self, widths: Sequence[int], num_outputs: int) -> nn.Module:
        """Make a head for maps of these widths."""
        if self.kind == "linear":
            return LinearHead(widths, num_outputs)
        return DPTHead(widths, num_outputs, self.width)


class LinearHead(nn.Module):
    """Normalise, put layers side by side, upsample, and apply one linear layer to each place."""

    def __init__(self, widths: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(sum(widths))
        self.output = nn.Conv2d(sum(widths), num_outputs, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, D, h, w)`` to ``(B, O, *output_grid(maps))``."""
        x = self.norm(join_maps(maps))
        # A linear layer and a linear interpolation can change places; this order is cheaper.
        return functional.interpolate(self.output(x), size=output_grid(maps), mode="bilinear")


class DPTHead(nn.Module):
    """Layers at four scales, fused from the coarsest on by residual convolutions."""

    def __init__(self, widths: Sequence[int], num_outputs: int, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.BatchNorm2d(d) for d in widths)
        self.projections = nn.ModuleList(nn.Conv2d(d, width, 1) for d in widths)
        self.fusions = nn.ModuleList(Fusion(width) for _ in widths)
        self.output = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(), nn.Conv2d(width, num_outputs, 1)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, D, h, w)``, shallow to deep, to ``(B, O, *output_grid(maps))``."""
        height, width = output_grid(maps)
        total: Tensor | None = None
        for i in reversed(range(len(maps))):
            # Shallow layers are read finely, deep ones coarsely: a 1st, 2nd, 4th, 4th, ...
            part = min(_UPSAMPLED, 2**i)
            x = self.projections[i](self.norms[i](maps[i]))
            size = (height // part, width // part)
            x = functional.interpolate(x, size=size, mode="bilinear")
            if total is not None:
                x = x + functional.interpolate(total, size=size, mode="bilinear")
            total = self.fusions[i](x)
        assert total is not None
        return self.output(total)


class Fusion(nn.Module):
    """Two residual convolution units: ``(B, D, h, w)`` to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Refine."""
        for unit in self.units:
            x = x + unit(x)
        return x


def output_grid(maps: Sequence[Tensor]) -> tuple[int, int]:
    """What heads give: four times the coarsest grid, or the finest where that is larger."""
    height, width = (
        max(_UPSAMPLED * min(x.shape[i] for x in maps), max(x.shape[i] for x in maps))
        for i in (2, 3)
    )
    return height, width


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """Put maps side by side on the finest of their grids."""
    height, width = (max(x.shape[i] for x in maps) for i in (2, 3))
    grown = [
        x
        if x.shape[2:] == (height, width)
        else functional.interpolate(x, size=(height, width), mode="bilinear")
        for x in maps
    ]
    return torch.cat(grown, dim=1)
