"""Fashion-MNIST, and any set in MNIST's file format.

Debian's package ``dataset-fashion-mnist`` puts the four files into
``/usr/share/datasets/fashion-mnist``. The last training pictures are the validation set.
"""

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unimm.data.labelled.sets import (
    LabelledConfig,
    LabelledPictures,
    LabelledSplits,
    existing_folder,
)

CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)


@dataclass(frozen=True, kw_only=True)
class FashionMnistConfig(LabelledConfig):
    """Fashion-MNIST.

    Attributes:
        folder: of the four ``*-ubyte.gz`` files.
    """

    name: ClassVar[str] = "fashion_mnist"

    folder: str = "/usr/share/datasets/fashion-mnist"
    num_train: int = 55_000
    num_validation: int = 5000
    num_test: int = 10_000

    def read(self, device: torch.device) -> LabelledSplits:
        """Read the files; grey pictures become white on black in three channels."""
        folder = existing_folder(self.folder, "Fashion-MNIST (apt install dataset-fashion-mnist)")
        pixels, labels = _read_part(folder, "train")
        held = len(labels) - self.num_validation
        if held < 1:
            raise ValueError(
                f"{len(labels)} pictures cannot give {self.num_validation} to validate"
            )
        train = slice(0, min(self.num_train, held))
        test_pixels, test_labels = _read_part(folder, "t10k")
        return LabelledSplits(
            name="Fashion-MNIST",
            train=self._part(pixels[train], labels[train]),
            validation=self._part(pixels[held:], labels[held:]),
            test=self._part(test_pixels[: self.num_test], test_labels[: self.num_test]),
            classes=CLASSES,
        )

    def _part(self, pixels: Tensor, labels: Tensor) -> LabelledPictures:
        side = self.image_size
        grown = [
            functional.interpolate(chunk[:, None].float(), size=(side, side), mode="bilinear")
            .round()
            .to(torch.uint8)
            .expand(-1, 3, -1, -1)
            for chunk in pixels.split(1024)
        ]
        return LabelledPictures(pixels=torch.cat(grown), labels=labels)


def _read_part(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
        raise ValueError(
            f"{folder}: {tuple(pixels.shape)} pictures and {tuple(labels.shape)} labels of {part} "
            "do not belong together"
        )
    return pixels, labels.long()


def read_idx(path: Path) -> Tensor:
    """An array of bytes in MNIST's format, gzipped.

    Raises:
        ValueError: if the file is missing, cut off or something else.
    """
    if not path.is_file():
        raise ValueError(f"no file {path}")
    try:
        content = gzip.decompress(path.read_bytes())
        zero, kind, num_axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{num_axes}I", content[4 : 4 + 4 * num_axes])
        values = np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * num_axes)
        if zero != 0 or kind != 8:
            raise ValueError("it does not begin as an array of bytes does")
        return torch.from_numpy(values.reshape(shape).copy())
    except (OSError, EOFError, struct.error, ValueError) as error:
        raise ValueError(f"{path} is not an array in MNIST's format: {error}") from error
