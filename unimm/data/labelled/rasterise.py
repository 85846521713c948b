"""A small software rasteriser: triangles to exact depth, and which triangle each pixel shows.

Tensor code, so that it runs on the CPU and on a GPU alike. Legend: ``T`` triangles, ``S`` side of
the picture, ``F`` fragments: the pixels of each triangle's box.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

_FRAGMENTS = 2_000_000  # at once
_EDGE = 1e-5  # what rounding may take from a pixel on the edge of two triangles


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Looks at the origin; y is up.

    Attributes:
        azimuth: where it stands, in radians around the vertical from the z axis.
        elevation: in radians above the horizon.
        distance: to the origin.
        field_of_view: in radians, of the picture's side.
    """

    azimuth: float
    elevation: float
    distance: float
    field_of_view: float = math.radians(40)

    @property
    def position(self) -> Tensor:
        """Where it stands, ``(3,)``."""
        level = math.cos(self.elevation)
        x, z = level * math.sin(self.azimuth), level * math.cos(self.azimuth)
        return self.distance * torch.tensor([x, math.sin(self.elevation), z])

    @property
    def axes(self) -> Tensor:
        """Rows right, up and forward, ``(3, 3)``."""
        forward = -self.position / self.distance
        right = torch.linalg.cross(forward, torch.tensor([0.0, 1.0, 0.0]))
        right = right / right.norm()
        return torch.stack([right, torch.linalg.cross(right, forward), forward])

    def focal_length(self, side: int) -> float:
        """In pixels."""
        return side / 2 / math.tan(self.field_of_view / 2)

    def project(self, points: Tensor, side: int) -> Tensor:
        """Points ``(..., 3)`` to x and y in pixels and depth along the view, ``(..., 3)``."""
        axes, position = (x.to(points) for x in (self.axes, self.position))
        x, y, depth = ((points - position) @ axes.T).unbind(-1)
        scale = self.focal_length(side) / depth
        return torch.stack([side / 2 + scale * x, side / 2 - scale * y, depth], dim=-1)

    def depth_of_plane(self, height: float, side: int, device: torch.device) -> Tensor:
        """Depth ``(S, S)`` of the horizontal plane at a height; infinite where it is not seen."""
        middles = (torch.arange(side) + 0.5 - side / 2) / self.focal_length(side)
        right, up, forward = self.axes
        fall = (forward[1] - middles[:, None] * up[1] + middles[None, :] * right[1]).to(device)
        depth = (height - float(self.position[1])) / fall  # the ray's forward part is 1
        return torch.where((fall != 0) & (depth > 0), depth, torch.inf)


class Raster(NamedTuple):
    """What a picture shows.

    Attributes:
        depth: ``(S, S)``, infinite where there is nothing.
        triangles: ``(S, S)`` int64, -1 where there is nothing.
    """

    depth: Tensor
    triangles: Tensor


def rasterise(corners: Tensor, side: int) -> Raster:
    """Find what is nearest in the middle of each pixel.

    Args:
        corners: ``(T, 3, 3)`` x, y in pixels and positive depth of each triangle's corners, as
            ``Camera.project`` gives them. Both sides of a triangle are seen.
        side: S.
    """
    device = corners.device
    low = (corners[..., :2].amin(1) - 0.5).ceil().long().clamp(0, side)  # (T, 2)
    high = (corners[..., :2].amax(1) - 0.5).floor().long().clamp(-1, side - 1)
    size = (high - low + 1).clamp(min=0)
    counts = size.prod(1)  # (T,) fragments
    depth = torch.full((side * side,), torch.inf, device=device)
    nearest = torch.full((side * side,), -1, device=device)
    chunk_of = (counts.cumsum(0) - 1).clamp(min=0) // _FRAGMENTS
    for chunk in range(int(chunk_of[-1]) + 1 if len(corners) else 0):
        chosen = ((chunk_of == chunk) & (counts > 0)).nonzero()[:, 0]
        triangles = chosen.repeat_interleave(counts[chosen])  # (F,)
        first = (counts[chosen].cumsum(0) - counts[chosen]).repeat_interleave(counts[chosen])
        within = torch.arange(len(triangles), device=device) - first
        width = size[triangles, 0]
        x, y = low[triangles, 0] + within % width, low[triangles, 1] + within // width
        found = _depth_at(corners[triangles], x + 0.5, y + 0.5)
        seen = found.isfinite()
        _keep_nearest(depth, nearest, (y * side + x)[seen], found[seen], triangles[seen])
    return Raster(depth.view(side, side), nearest.view(side, side))


def _depth_at(corners: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Depth of triangles ``(F, 3, 3)`` at points ``(F,)``; infinite outside of them."""
    point = torch.stack([x, y], dim=-1)[:, None]  # (F, 1, 2)
    arms = corners[..., :2] - point  # (F, 3, 2) to each corner
    following, last = arms.roll(-1, 1), arms.roll(-2, 1)
    shares = following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]  # (F, 3)
    area = shares.sum(1, keepdim=True)
    shares = shares / torch.where(area == 0, torch.nan, area)
    inside = (shares >= -_EDGE).all(1)  # false for triangles seen from their edge
    # Not depth but its inverse is linear in the picture.
    return torch.where(inside, 1 / (shares / corners[..., 2]).sum(1), torch.inf)


def _keep_nearest(
    depth: Tensor, nearest: Tensor, pixels: Tensor, found: Tensor, triangles: Tensor
) -> None:
    """Put fragments into the picture; of equally near ones the first triangle stays."""
    before = depth.clone()
    depth.scatter_reduce_(0, pixels, found, "amin")
    wins = (found == depth[pixels]) & (depth < before)[pixels]
    unset = torch.iinfo(torch.int64).max
    winners = torch.full_like(nearest, unset)
    winners.scatter_reduce_(0, pixels[wins], triangles[wins], "amin")
    nearest.copy_(torch.where(winners == unset, nearest, winners))
