"""One real photo with true depth, as a spot check of what was learned from renders.

The motorcycle of Middlebury's stereo pairs (Scharstein et al., 2014) comes inside scikit-image:
the left photo and the disparity of its pixels. Train and validation sets are Storyworld's. The
units differ, so only aligned errors mean something.
"""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimm.data.labelled.sets import (
    LabelledConfig,
    LabelledPictures,
    LabelledSplits,
    existing_folder,
    square,
    square_depth,
)
from unimm.data.labelled.storyworld import StoryworldConfig

# Of the pair as scikit-image has it, from the documentation of ``skimage.data.stereo_motorcycle``.
FOCAL_LENGTH = 994.978  # pixels
PRINCIPAL_OFFSET = 31.086  # pixels between the two cameras' principal points
BASELINE = 0.193001  # metres


@dataclass(frozen=True, kw_only=True)
class StereoPhotoConfig(LabelledConfig):
    """Storyworld to learn from, a photo to be tested on.

    Attributes:
        folder: of ``motorcycle_left.png`` and ``motorcycle_disp.npz``; empty is the installed
            scikit-image's.
        num_test: squares of the photo's full height, evenly spaced from left to right.
        num_workers: processes that sample Storyworld's scenes.
    """

    name: ClassVar[str] = "stereo_photo"

    folder: str = ""
    num_test: int = 3
    seed: int = 9001
    num_workers: int = 0

    def read(self, device: torch.device) -> LabelledSplits:
        """Render Storyworld and cut the photo."""
        photo = self._photo()  # first: rendering takes minutes
        rendered = StoryworldConfig(
            scenes="mixed",
            image_size=self.image_size,
            num_train=self.num_train,
            num_validation=self.num_validation,
            num_test=1,
            seed=self.seed,
            num_workers=self.num_workers,
        ).read(device)
        return replace(rendered, name=f"a stereo photo, after {rendered.name}", test=photo)

    def _photo(self) -> LabelledPictures:
        root = existing_folder(self.folder or _installed(), "the motorcycle's stereo pair")
        picture, depth = _read_pair(root)
        squares = list(_squares(picture, depth, self.num_test))
        depths = torch.stack([square_depth(d, self.image_size) for _, d in squares])
        return LabelledPictures(
            pixels=torch.stack([square(p, self.image_size) for p, _ in squares]),
            depth=depths,
            has_depth=depths > 0,
        )


def depth_of_disparity(disparity: Tensor) -> Tensor:
    """Depth in metres; 0 where the disparity is not known, which is infinite or not a number."""
    depth = BASELINE * FOCAL_LENGTH / (disparity + PRINCIPAL_OFFSET)
    return torch.where(disparity.isfinite(), depth, 0.0)


def _installed() -> Path:
    """Where scikit-image keeps its pictures; it is not imported.

    Raises:
        ValueError: if it is not installed.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise ValueError(
            "the stereo photo comes inside scikit-image: pip install scikit-image, or give the "
            "folder of motorcycle_left.png and motorcycle_disp.npz"
        )
    return Path(found.origin).parent / "data"


def _read_pair(folder: Path) -> tuple[Image.Image, Tensor]:
    """The photo and its depth ``(H, W)``.

    Raises:
        ValueError: if a file is missing or damaged, or they do not belong together.
    """
    picture_path, disparity_path = folder / "motorcycle_left.png", folder / "motorcycle_disp.npz"
    try:
        with Image.open(picture_path) as opened:
            picture = opened.convert("RGB")
        with np.load(disparity_path) as arrays:
            disparity = torch.from_numpy(arrays["arr_0"].astype(np.float32))
    except (OSError, SyntaxError, KeyError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"{folder} does not hold the stereo pair: {error}") from error
    if tuple(disparity.shape) != picture.size[::-1]:
        raise ValueError(
            f"{picture_path.name} has {picture.size} pixels, but the disparity has "
            f"{tuple(disparity.shape)}"
        )
    return picture, depth_of_disparity(disparity)


def _squares(
    picture: Image.Image, depth: Tensor, count: int
) -> Iterator[tuple[Image.Image, Tensor]]:
    """Squares of full height, the middle one if only one is asked for."""
    side = min(picture.size)
    room = picture.width - side
    lefts = [room / 2] if count == 1 else [i * room / (count - 1) for i in range(count)]
    for left in (round(x) for x in lefts):
        yield picture.crop((left, 0, left + side, side)), depth[:side, left : left + side]
