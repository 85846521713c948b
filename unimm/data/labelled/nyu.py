"""NYU Depth v2 in the layout of DINOv2's and BTS's depth code.

``nyu_train.txt`` and ``nyu_test.txt`` name ``SCENE/rgb_00000.jpg SCENE/sync_depth_00000.png
FOCAL``;
depth is in millimetres. The test maps are scored inside Eigen's crop.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unimm.data.labelled.sets import LabelledConfig, LabelledSplits, existing_folder, shuffled
from unimm.data.labelled.split_files import load_pairs, read_pairs

_RANGE = (1e-3, 10.0)  # metres


@dataclass(frozen=True, kw_only=True)
class NyuConfig(LabelledConfig):
    """NYU Depth v2.

    Attributes:
        folder: that holds the split files and the scenes.
    """

    name: ClassVar[str] = "nyu"

    folder: str = "nyu"
    image_size: int = 256
    num_train: int = 24_000
    num_validation: int = 500
    num_test: int = 654

    def read(self, device: torch.device) -> LabelledSplits:
        """Read a seeded choice of pairs; part of the training pairs validates."""
        root = existing_folder(self.folder, "NYU Depth v2")
        learned = shuffled(read_pairs(root / "nyu_train.txt", root, root), self.seed)
        held, learned = learned[: self.num_validation], learned[self.num_validation :]
        tested = read_pairs(root / "nyu_test.txt", root, root)[: self.num_test]
        how = {"size": self.image_size, "units_per_metre": 1000.0, "depth_range": _RANGE}
        return LabelledSplits(
            name="NYU Depth v2",
            train=load_pairs(learned[: self.num_train], **how),
            validation=load_pairs(held, **how, crop=eigen_crop),
            test=load_pairs(tested, **how, crop=eigen_crop),
            depth_range=_RANGE,
        )


def eigen_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """What Eigen et al. (2014) score of 480x640, as shares of any size."""
    return (
        round(height * 45 / 480),
        round(height * 471 / 480),
        round(width * 41 / 640),
        round(width * 601 / 640),
    )
