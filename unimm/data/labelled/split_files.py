"""Depth sets that come as lists of pairs: a line names a picture and its depth map.

Depth maps are 16-bit PNGs; 0 means that there is none. Both are cut to the middle square.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unimm.data.labelled.sets import LabelledPictures, Skipped, square, square_depth

Crop = Callable[[int, int], tuple[int, int, int, int]]
"""Height and width to the top, bottom, left and right of what is scored."""


def read_pairs(path: Path, pictures: Path, depths: Path) -> list[tuple[Path, Path]]:
    """Pairs of files that a split names; lines whose depth is ``None`` are left out.

    Raises:
        ValueError: if the split file is missing or holds no pair.
    """
    if not path.is_file():
        raise ValueError(f"no split file {path}")
    words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    pairs = [
        (pictures / line[0].lstrip("/"), depths / line[1].lstrip("/"))
        for line in words
        if len(line) >= 2 and line[1] != "None"
    ]
    if not pairs:
        raise ValueError(f"{path} names no pair of a picture and a depth map")
    return pairs


def load_pairs(
    pairs: list[tuple[Path, Path]],
    *,
    size: int,
    units_per_metre: float,
    depth_range: tuple[float, float],
    crop: Crop | None = None,
) -> LabelledPictures:
    """Read pairs; what cannot be read is counted and logged.

    Args:
        pairs: picture and depth files.
        size: side of the square result.
        units_per_metre: what a depth of 1 is stored as.
        depth_range: depths outside are not scored.
        crop: what of a map is scored; all by default.
    """
    pixels: list[Tensor] = []
    depths: list[Tensor] = []
    skipped = Skipped()
    for picture_path, depth_path in pairs:
        try:
            with Image.open(depth_path) as opened:
                depth = np.array(opened).astype(np.float32) / units_per_metre
            if depth.ndim != 2:
                raise ValueError(f"a depth map of shape {depth.shape}")
            with Image.open(picture_path) as opened:
                if opened.size != depth.shape[::-1]:
                    raise ValueError(f"{opened.size} pixels, but depth of {depth.shape[::-1]}")
                shown = square(opened, size)
            if crop is not None:
                depth = _keep(depth, crop)
            depths.append(square_depth(torch.from_numpy(depth), size))
            pixels.append(shown)
        except (OSError, SyntaxError, ValueError) as error:
            skipped.add(picture_path, error)
    skipped.check(len(pixels), str(pairs[0][0].parent))
    depth = torch.stack(depths)
    has_depth = (depth > depth_range[0]) & (depth < depth_range[1])
    return LabelledPictures(pixels=torch.stack(pixels), depth=depth, has_depth=has_depth)


def _keep(depth: NDArray[np.float32], crop: Crop) -> NDArray[np.float32]:
    top, bottom, left, right = crop(*depth.shape)
    kept = np.zeros_like(depth)
    kept[top:bottom, left:right] = depth[top:bottom, left:right]
    return kept
