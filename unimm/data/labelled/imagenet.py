"""ImageNet's folders, and any set of ``train/CLASS/*`` and ``val/CLASS/*``.

The validation folder is the test set, as is usual; a part of the training pictures takes its place.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from unimm.data.images import SUFFIXES
from unimm.data.labelled.sets import (
    LabelledConfig,
    LabelledPictures,
    LabelledSplits,
    Skipped,
    existing_folder,
    shuffled,
    square,
)

_NAMES = "LOC_synset_mapping.txt"  # "n01440764 tench, Tinca tinca" a line


@dataclass(frozen=True, kw_only=True)
class ImageNetConfig(LabelledConfig):
    """Class folders.

    Attributes:
        folder: that holds ``train`` and ``val``.
    """

    name: ClassVar[str] = "imagenet"

    folder: str = "imagenet"
    image_size: int = 256
    num_train: int = 50_000
    num_validation: int = 5000
    num_test: int = 50_000

    def read(self, device: torch.device) -> LabelledSplits:
        """Read a seeded choice of the pictures into memory, the middle squares."""
        root = existing_folder(self.folder, "ImageNet, with train/ and val/")
        classes = sorted(x.name for x in existing_folder(root / "train", "ImageNet").iterdir())
        learned = shuffled(_files(root / "train", classes), self.seed)
        held, learned = learned[: self.num_validation], learned[self.num_validation :]
        tested = shuffled(_files(existing_folder(root / "val", "ImageNet"), classes), self.seed)
        return LabelledSplits(
            name=f"{root.name} (class folders)",
            train=self._load(learned[: self.num_train]),
            validation=self._load(held),
            test=self._load(tested[: self.num_test]),
            classes=tuple(_class_names(root, classes)),
        )

    def _load(self, files: list[tuple[Path, int]]) -> LabelledPictures:
        pixels: list[Tensor] = []
        labels: list[int] = []
        skipped = Skipped()
        for path, label in files:
            try:
                with Image.open(path) as picture:
                    pixels.append(square(picture, self.image_size))
                labels.append(label)
            except (OSError, SyntaxError, ValueError) as error:
                skipped.add(path, error)
        skipped.check(len(pixels), self.folder)
        return LabelledPictures(pixels=torch.stack(pixels), labels=torch.tensor(labels))


def _files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    return [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).glob("*"))
        if path.suffix.lower() in SUFFIXES
    ]


def _class_names(root: Path, classes: list[str]) -> list[str]:
    """The first word for each synset, where the folder says; else the folders' names."""
    path = root / _NAMES
    if not path.is_file():
        return classes
    lines = (line.split(" ", 1) for line in path.read_text(encoding="utf-8").splitlines() if line)
    words = {synset: said.split(",")[0].strip() for synset, said in lines}
    return [words.get(name, name) for name in classes]
