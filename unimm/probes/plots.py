"""Plots of probes, drawn with Pillow: a heat map of a grid, and rows of pictures."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

_LOW, _HIGH = np.array([251, 247, 238]), np.array([38, 84, 107])  # paper to ink
_FAR, _NEAR = np.array([24, 20, 48]), np.array([250, 214, 130])
_CELL, _LEFT, _TOP = 72, 110, 64


def heat_map(
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    is_percent: bool = True,
) -> Image.Image:
    """A table of numbers as coloured cells; the largest has a frame.

    Args:
        values: one list a row.
        rows: their names.
        columns: names of the columns.
        title: above the table.
        is_percent: write shares as per cent.
    """
    table = np.asarray(values, dtype=float)
    low, high = float(np.nanmin(table)), float(np.nanmax(table))
    width = _LEFT + _CELL * len(columns) + 20
    picture = Image.new("RGB", (max(width, 420), _TOP + _CELL * len(rows) + 20), "#fbf7ee")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(17), ImageFont.load_default(14)
    draw.text((12, 10), title, fill="#3a2e25", font=font)
    for j, name in enumerate(columns):
        draw.text((_LEFT + (j + 0.5) * _CELL, 50), name, fill="#8f7f6b", font=small, anchor="mm")
    best = np.unravel_index(np.nanargmax(table), table.shape)
    for i, name in enumerate(rows):
        y = _TOP + i * _CELL
        draw.text((_LEFT - 10, y + _CELL / 2), name, fill="#8f7f6b", font=small, anchor="rm")
        for j in range(len(columns)):
            share = (table[i, j] - low) / max(high - low, 1e-9)
            colour = tuple(int(x) for x in _LOW + (_HIGH - _LOW) * share)
            x = _LEFT + j * _CELL
            frame = "#b5533c" if (i, j) == best else None
            draw.rectangle(
                (x, y, x + _CELL - 3, y + _CELL - 3), fill=colour, outline=frame, width=3
            )
            said = f"{100 * table[i, j]:.1f}" if is_percent else f"{table[i, j]:.3g}"
            middle = (x + _CELL / 2, y + _CELL / 2)
            draw.text(
                middle, said, fill="#fff" if share > 0.5 else "#3a2e25", font=font, anchor="mm"
            )
    return picture


def depth_picture(depth: Tensor, low: float, high: float) -> NDArray[np.uint8]:
    """Depth ``(H, W)`` as colours, near ones light, on a logarithmic scale."""
    share = (depth.float().clamp(low, high).log() - np.log(low)) / (np.log(high) - np.log(low))
    mixed = _NEAR + (_FAR - _NEAR) * share.cpu().numpy()[..., None]
    return mixed.round().astype(np.uint8)


def picture_rows(
    columns: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], *, side: int = 128
) -> Image.Image:
    """Pictures side by side, one example a row, with a name above each column."""
    num = len(columns[0][1])
    sheet = Image.new("RGB", ((side + 6) * len(columns) + 6, 30 + (side + 6) * num), "#fbf7ee")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for j, (name, pictures) in enumerate(columns):
        x = 6 + j * (side + 6)
        draw.text((x + side / 2, 15), name, fill="#3a2e25", font=font, anchor="mm")
        for i, pixels in enumerate(pictures):
            shown = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(shown, (x, 30 + i * (side + 6)))
    return sheet


def to_array(pixels: Tensor) -> NDArray[np.uint8]:
    """``(3, H, W)`` uint8 to ``(H, W, 3)``."""
    assert pixels.dtype == torch.uint8, pixels.dtype
    return pixels.permute(1, 2, 0).cpu().numpy()
