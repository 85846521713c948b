"""A folder of pictures as an endless stream of batches, for training on one's own images.

Shapes: B batch, S side of the square pictures.
"""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_log = logging.getLogger(__name__)


class PictureBatch(NamedTuple):
    """Pictures to learn from.

    Attributes:
        pixels: ``(B, 3, S, S)`` uint8.
        mask: ``(B, S, S)`` bool, true inside the figures; None where a source knows none.
    """

    pixels: Tensor
    mask: Tensor | None


class Unreadable(NamedTuple):
    """A file that could not be decoded, and why."""

    path: Path
    reason: str


class ImageFolder(Dataset[Tensor | Unreadable]):
    """The pictures of a folder and its subfolders, in the order of their paths.

    Args:
        folder: where the pictures lie.
        image_size: side S in pixels.
        is_cropped: cut the middle square out of pictures of another size and resize it; otherwise
            another size is an error.

    Raises:
        ValueError: if the folder is missing or holds no picture.
    """

    def __init__(self, folder: str | Path, *, image_size: int, is_cropped: bool = False) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise ValueError(f"picture folder {str(folder)!r} does not exist")
        self.paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not self.paths:
            raise ValueError(f"{str(folder)!r} holds no pictures; known suffixes: {SUFFIXES}")
        self.image_size = image_size
        self.is_cropped = is_cropped

    def __len__(self) -> int:
        """Count of files, readable or not."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor | Unreadable:
        """Read one picture, ``(3, S, S)`` uint8, or say why it cannot be read.

        Raises:
            ValueError: if it has another size and may not be cropped.
        """
        path = self.paths[index]
        try:
            with Image.open(path) as image:
                picture = to_rgb(image)
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            return Unreadable(path, str(error))
        side = self.image_size
        if picture.size != (side, side):
            if not self.is_cropped:
                raise ValueError(
                    f"{path} is {picture.width}x{picture.height} pixels, but {side}x{side} is "
                    "trained on: resize the pictures, or set is_cropped to cut and resize them"
                )
            picture = cut_square(picture, side)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def to_rgb(picture: Image.Image) -> Image.Image:
    """Give a picture three channels; what is transparent becomes white."""
    if "A" not in picture.getbands() and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def cut_square(picture: Image.Image, side: int) -> Image.Image:
    """Cut out the middle square and resize it to a side in pixels."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    square = picture.crop((left, top, left + short, top + short))
    return square.resize((side, side), Image.Resampling.LANCZOS)


class FolderBatches(Iterator[PictureBatch]):
    """Endless full batches of a folder's pictures in random order.

    Files that cannot be decoded are counted in ``num_skipped`` and logged with their path, once
    each time they come up.

    Args:
        pictures: the folder.
        batch_size: B.
        seed: of the order.
        num_workers: processes that decode; 0 decodes here.
    """

    def __init__(
        self, pictures: ImageFolder, *, batch_size: int, seed: int, num_workers: int = 0
    ) -> None:
        self.batch_size = batch_size
        self.num_skipped = 0
        generator = torch.Generator().manual_seed(seed)
        self._loader = DataLoader(
            pictures,
            batch_size=batch_size,
            shuffle=True,
            generator=generator,
            num_workers=num_workers,
            collate_fn=_as_list,
            persistent_workers=num_workers > 0,
        )
        self._batches = self._read()

    def __next__(self) -> PictureBatch:
        """Give the next batch."""
        return next(self._batches)

    def _read(self) -> Iterator[PictureBatch]:
        waiting: list[Tensor] = []
        while True:
            num_read = 0
            for items in self._loader:
                for item in items:
                    if isinstance(item, Unreadable):
                        self.num_skipped += 1
                        _log.warning("skipped %s: %s", item.path, item.reason)
                    else:
                        num_read += 1
                        waiting.append(item)
                while len(waiting) >= self.batch_size:
                    yield PictureBatch(torch.stack(waiting[: self.batch_size]), None)
                    waiting = waiting[self.batch_size :]
            if num_read == 0:
                raise ValueError(f"none of the {self.num_skipped} files could be read as a picture")


def _as_list(items: list[Tensor | Unreadable]) -> list[Tensor | Unreadable]:
    return items
