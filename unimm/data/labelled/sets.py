"""What a labelled set is: pictures, and whichever truth the set has.

A reader is one file with a config and one line in the registry. Legend: ``N`` pictures, ``S`` their
side, ``K`` keypoints, ``P`` pairs.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

_log = logging.getLogger(__name__)

NO_CLASS = -1  # a pixel that has no class and is not scored


@dataclass(frozen=True, kw_only=True)
class LabelledPictures:
    """Pictures of one split.

    Attributes:
        pixels: ``(N, 3, S, S)`` uint8.
        labels: ``(N,)`` int64, class of the picture.
        depth: ``(N, S, S)`` float32, in the set's own unit.
        has_depth: ``(N, S, S)`` bool.
        class_map: ``(N, S, S)`` int16, class of each pixel or ``NO_CLASS``.
        keypoints: ``(N, K, 2)`` float32, x and y in pixels; point k means the same in a pair.
        is_visible: ``(N, K)`` bool.
        boxes: ``(N, 4)`` float32, left, top, right, bottom of what has the keypoints.
        pairs: ``(P, 2)`` int64, which pictures show the same thing.
        candidates: texts that may describe each picture; its label is the right one's number.
    """

    pixels: Tensor
    labels: Tensor | None = None
    depth: Tensor | None = None
    has_depth: Tensor | None = None
    class_map: Tensor | None = None
    keypoints: Tensor | None = None
    is_visible: Tensor | None = None
    boxes: Tensor | None = None
    pairs: Tensor | None = None
    candidates: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        """Count of pictures."""
        return len(self.pixels)

    def need(self, name: str) -> Tensor:
        """A truth that a probe cannot do without.

        Raises:
            ValueError: if the set has none.
        """
        found = getattr(self, name)
        if found is None:
            raise ValueError(f"this probe needs {name}, which the data set does not have")
        return found


@dataclass(frozen=True, kw_only=True)
class LabelledSplits:
    """A set in three parts: probes learn on the first, choose on the second, are scored once.

    Attributes:
        name: of the set, with what matters of its settings.
        train: to learn from.
        validation: to choose by.
        test: to report.
        classes: names of the classes of pictures.
        pixel_classes: names of the classes of pixels.
        depth_range: smallest and largest depth that is scored.
    """

    name: str
    train: LabelledPictures
    validation: LabelledPictures
    test: LabelledPictures
    classes: tuple[str, ...] = ()
    pixel_classes: tuple[str, ...] = ()
    depth_range: tuple[float, float] = (1e-3, 10.0)


@dataclass(frozen=True, kw_only=True)
class LabelledConfig:
    """Base of the readers' configurations.

    Attributes:
        image_size: side S that pictures are cut and resized to.
        num_train: at most so many.
        num_validation: likewise.
        num_test: likewise.
        seed: of what is drawn, and of how the training pictures are parted.
    """

    name: ClassVar[str]

    image_size: int = 128
    num_train: int = 8000
    num_validation: int = 1000
    num_test: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.num_train, self.num_validation, self.num_test, self.image_size) < 1:
            raise ValueError("image_size and the numbers of pictures must be at least 1")

    def read(self, device: torch.device) -> LabelledSplits:
        """Read or render the set; ``device`` may help to render, the result is on the CPU."""
        raise NotImplementedError


class Skipped:
    """Files that a reader had to leave out: logged one by one, counted at the end."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, path: Path, error: object) -> None:
        """Leave a file out."""
        self.count += 1
        _log.warning("skipped %s: %s", path, error)

    def check(self, num_read: int, what: str) -> None:
        """Say how many were left out.

        Raises:
            ValueError: if nothing could be read.
        """
        if num_read == 0:
            raise ValueError(f"{what}: none of {self.count} files could be read")
        if self.count:
            _log.warning("%s: %d of %d left out", what, self.count, self.count + num_read)


def square(picture: Image.Image, side: int, *, resample: int = Image.Resampling.LANCZOS) -> Tensor:
    """The middle square, resized: ``(3, side, side)`` uint8."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    cut = picture.convert("RGB").crop((left, top, left + short, top + short))
    cut = cut.resize((side, side), resample=resample)
    return torch.from_numpy(np.array(cut)).permute(2, 0, 1).contiguous()


def square_depth(depth: Tensor, side: int) -> Tensor:
    """The middle square of a map ``(H, W)``, resized: ``(side, side)``.

    Each place takes one measured depth: means would invent surfaces.
    """
    short = min(depth.shape)
    top, left = ((x - short) // 2 for x in depth.shape)
    cut = depth[None, None, top : top + short, left : left + short]
    return functional.interpolate(cut, size=(side, side), mode="nearest-exact")[0, 0]


def existing_folder(path: str | Path, what: str) -> Path:
    """A folder that must be there.

    Raises:
        ValueError: if it is not.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"no folder {str(path)!r}; give the root of {what}")
    return folder


def shuffled(items: Iterable, seed: int) -> list:
    """The items in an order that a seed fixes."""
    listed = list(items)
    order = torch.randperm(len(listed), generator=torch.Generator().manual_seed(seed))
    return [listed[i] for i in order.tolist()]
