"""A PNG of pictures in rows: how a person sees a model learn.

Shapes: N pictures, H W their size.
"""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor


def save_grid(path: Path, pixels: Tensor, *, columns: int) -> None:
    """Write pictures ``(N, 3, H, W)`` in [-1, 1] as one PNG, ``columns`` to a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    num_missing = -len(pixels) % columns
    blank = pixels.new_ones((num_missing, *pixels.shape[1:]))
    cells = torch.cat([pixels, blank]).clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8).cpu()
    rows = [torch.cat(list(row), dim=2) for row in cells.split(columns)]  # each (3, H, columns W)
    Image.fromarray(torch.cat(rows, dim=1).permute(1, 2, 0).numpy()).save(path)


def save_pairs(path: Path, pixels: Tensor, drawn: Tensor, *, pairs_per_row: int = 4) -> None:
    """Write each picture beside its reconstruction, both ``(N, 3, H, W)`` in [-1, 1]."""
    pairs = torch.stack([pixels, drawn], dim=1).flatten(0, 1)
    save_grid(path, pairs, columns=2 * pairs_per_row)
