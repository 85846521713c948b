"""SPair-71k: pairs of photos of one class with matching keypoints (Min et al., 2019).

``JPEGImages/CLASS/*.jpg`` and ``PairAnnotation/{trn,val,test}/*.json``. Pictures are padded to
squares, so that nothing is cut off and a box keeps its form. Legend: ``P`` pairs.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image, ImageOps
from torch import Tensor

from unimm.data.labelled.sets import (
    LabelledConfig,
    LabelledPictures,
    LabelledSplits,
    Skipped,
    existing_folder,
    shuffled,
    square,
)

_MOST_POINTS = 30
_SIDES = (("src_imname", "src_kps", "src_bndbox"), ("trg_imname", "trg_kps", "trg_bndbox"))


@dataclass(frozen=True, kw_only=True)
class SpairConfig(LabelledConfig):
    """SPair-71k; the numbers of pictures are twice those of pairs.

    Attributes:
        folder: that holds ``JPEGImages`` and ``PairAnnotation``.
    """

    name: ClassVar[str] = "spair"

    folder: str = "SPair-71k"
    image_size: int = 256
    num_train: int = 2
    num_validation: int = 2000
    num_test: int = 24_468

    def read(self, device: torch.device) -> LabelledSplits:
        """Read a seeded choice of pairs."""
        root = existing_folder(self.folder, "SPair-71k")
        parts = (("trn", self.num_train), ("val", self.num_validation), ("test", self.num_test))
        train, validation, test = (self._part(root, name, count // 2) for name, count in parts)
        return LabelledSplits(name="SPair-71k", train=train, validation=validation, test=test)

    def _part(self, root: Path, part: str, num_pairs: int) -> LabelledPictures:
        folder = existing_folder(root / "PairAnnotation" / part, "SPair-71k")
        views: list[_View] = []
        skipped = Skipped()
        for path in shuffled(sorted(folder.glob("*.json")), self.seed)[: max(1, num_pairs)]:
            try:
                pair = json.loads(path.read_text(encoding="utf-8"))
                views += [self._view(root, pair, *names) for names in _SIDES]
            except (OSError, SyntaxError, ValueError, KeyError) as error:
                skipped.add(path, error)
        skipped.check(len(views), str(folder))
        columns = zip(*views, strict=True)
        pixels, keypoints, is_visible, boxes = (torch.stack(column) for column in columns)
        return LabelledPictures(
            pixels=pixels,
            keypoints=keypoints,
            is_visible=is_visible,
            boxes=boxes,
            pairs=torch.arange(len(views)).view(-1, 2),
        )

    def _view(self, root: Path, pair: dict[str, Any], image: str, kps: str, box: str) -> "_View":
        """One picture of a pair: pixels, points, which of them count, box."""
        path = root / "JPEGImages" / pair["category"] / pair[image]
        with Image.open(path) as opened:
            width, height = opened.size
            long = max(width, height)
            padded = ImageOps.pad(opened.convert("RGB"), (long, long), color=(127, 127, 127))
        offset = torch.tensor([(long - width) // 2, (long - height) // 2]).float()
        scale = self.image_size / long
        found = (torch.tensor(pair[kps], dtype=torch.float32).view(-1, 2) + offset) * scale
        points = torch.zeros(_MOST_POINTS, 2)
        points[: len(found)] = found
        counts = torch.arange(_MOST_POINTS) < len(found)
        corners = (torch.tensor(pair[box], dtype=torch.float32) + offset.repeat(2)) * scale
        return square(padded, self.image_size), points, counts, corners


_View = tuple[Tensor, Tensor, Tensor, Tensor]
