"""Templates: every look there is, small, and how well each explains patches of a picture.

For a figure of colours ``c`` (premultiplied) and opacity ``a`` before a backdrop ``g``, the picture
is ``c + (1 - a) g``. The squared error of "backdrop only" that it explains, less what it leaves
inside its outline, is linear in products of template and patch: one matrix product compares all
looks with all patches.

Shapes: L looks, N patches, P points of a template, Q features kept.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import grid_sample

from unimm.data.world.art import CANVAS, FOOT
from unimm.data.world.atlas import NUM_LEVELS, Atlas
from unimm.data.world.packing import look_of
from unimm.data.world.scene import (
    CHARACTER_TINTS,
    HEADWEAR,
    NO_HEADWEAR,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    Figure,
)

_CELL = 1 << (NUM_LEVELS - 1)  # canvas pixels a point: the atlas's smallest level
_ROWS, _COLUMNS = slice(2, 20), slice(2, 18)  # of that level, what figures can fill
_NUM_KEPT = 320
_GREY = 0.5  # colours are counted from here: sums of large squares would hide small differences
PENALTY = 3.0  # of an error that a figure leaves inside its outline, over one that it takes away
_MOST = 0.1  # squared error that a pixel counts for at most where it is taken away
OUTLINE = 0.05  # opacity from which a pixel is inside
_OVERSAMPLED = 64  # further directions while those to keep are found


def all_looks(styles: Sequence[str]) -> list[Figure]:
    """Every figure (of medium size) that can be drawn in these styles."""
    faces = [
        Figure(kind=kind, tint=tint, headwear=headwear, style=style)
        for style in styles
        for kind in SPECIES
        for tint in CHARACTER_TINTS
        for headwear in (NO_HEADWEAR, *HEADWEAR)
    ]
    things = [
        Figure(kind=kind, tint=tint, style=style)
        for style in styles
        for kind in OBJECTS
        for tint in OBJECT_TINTS
    ]
    return faces + things


class Templates:
    """All looks on one device.

    Attributes:
        figures: L looks.
        slots: ``(L,)`` int64, their places in the atlas.
    """

    def __init__(self, figures: Sequence[Figure], atlas: Atlas) -> None:
        self.figures = tuple(figures)
        looks = np.array([look_of(figure) for figure in figures])
        self.slots = torch.from_numpy(atlas.slots(looks)).to(atlas.device)
        small = atlas.levels[-1][self.slots][:, :, _ROWS, _COLUMNS]
        products = _products(small.float().flatten(2) / 255)
        # Looks differ in few directions; what lies outside of them cannot tell one from another.
        generator = Generator().manual_seed(0)
        width = min(_NUM_KEPT + _OVERSAMPLED, len(products))
        probe = torch.randn(len(products), width, generator=generator).to(products)
        directions = torch.linalg.qr(products.T @ (products @ (products.T @ probe))).Q
        kept = torch.linalg.svd(products @ directions, full_matrices=False).Vh[:_NUM_KEPT]
        self._basis = directions @ kept.T  # (10 P, Q)
        self._table = products @ self._basis  # (L, Q)

    def explained(self, patches: Tensor) -> Tensor:
        """Squared error that each look explains of each patch, less what it leaves.

        Args:
            patches: ``(N, 10 P)`` of ``patch_features``.

        Returns:
            ``(N, L)`` float32; negative where a look makes it worse.
        """
        return (patches @ self._basis) @ self._table.T


def _products(sprites: Tensor) -> Tensor:
    """``(L, 4, P)`` sprites to the ``(L, 10 P)`` factors that patches are multiplied with."""
    alpha = sprites[:, 3:]
    colour = sprites[:, :3] - _GREY * alpha
    factors = [colour.square().sum(1, keepdim=True), colour * alpha, alpha.square(), colour, alpha]
    # With E there before and R left, the product of the first nine is E - R: the score is
    # bounded(E) - PENALTY R = PENALTY (E - R) - (PENALTY E - bounded(E)).
    factors = [PENALTY * factor for factor in factors]
    return torch.cat([*factors, -(alpha > OUTLINE).float()], dim=1).flatten(1)


def patch_features(pictures: Tensor, places: Tensor) -> Tensor:
    """Cut what templates are compared with out of pictures, at given places.

    Args:
        pictures: ``(N, 7, S, S)``: difference to the backdrop, backdrop, and weight, in 0..1;
            the backdrop and the difference already multiplied by the weight.
        places: ``(N, M, 4)``: foot x, y in pixels, picture pixels a canvas pixel, and 1 or -1 for
            a mirrored figure.

    Returns:
        ``(N, M, 10 P)``.
    """
    size = pictures.shape[-1]
    rows = torch.arange(_ROWS.start, _ROWS.stop, device=places.device) + 0.5
    columns = torch.arange(_COLUMNS.start, _COLUMNS.stop, device=places.device) + 0.5
    x, y, ratio, side = (part[..., None] for part in places.unbind(-1))  # (N, M, 1)
    columns = x + (columns * _CELL - CANVAS / 2) * ratio * side  # (N, M, columns)
    rows = y + (rows * _CELL - FOOT) * ratio
    grid = torch.stack(
        torch.broadcast_tensors(columns[..., None, :], rows[..., :, None]), dim=-1
    )  # (N, M, rows, columns, 2)
    grid = (grid * (2 / size) - 1).flatten(1, 2)
    read = grid_sample(pictures, grid, align_corners=False, padding_mode="zeros")
    read = read.unflatten(2, (-1, rows.shape[-1])).transpose(1, 2).flatten(3)  # (N, M, 7, P)
    rest, ground, weight = read[:, :, :3], read[:, :, 3:6], read[:, :, 6:]
    ground = ground - _GREY * weight
    safe = weight.clamp(min=1e-3)
    squares = (ground.square() / safe).sum(2, keepdim=True)
    mixed = (rest * ground / safe).sum(2, keepdim=True)
    energy = (rest.square() / safe).sum(2, keepdim=True)
    energy = PENALTY * energy - energy / (1 + energy / (_MOST * safe))
    parts = [-weight, 2 * ground, -squares, 2 * rest, -2 * mixed, energy]
    return torch.cat(parts, dim=2).flatten(2)
