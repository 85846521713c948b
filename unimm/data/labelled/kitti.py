"""KITTI's depth benchmark, Eigen's split, in the layout of DINOv2's depth code.

``kitti_eigen_train.txt`` and ``kitti_eigen_test.txt`` name
``DATE/DRIVE/image_02/data/0000000069.png DRIVE/proj_depth/groundtruth/image_02/0000000069.png
FOCAL``; pictures lie in ``input/``, depth maps in ``gt_depth/``, 256 to the metre. Test maps are
scored inside Garg's crop. Pictures are cut to the middle square.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from unimm.data.labelled.sets import LabelledConfig, LabelledSplits, existing_folder, shuffled
from unimm.data.labelled.split_files import load_pairs, read_pairs

_RANGE = (1e-3, 80.0)  # metres


@dataclass(frozen=True, kw_only=True)
class KittiConfig(LabelledConfig):
    """KITTI.

    Attributes:
        folder: that holds the split files, ``input`` and ``gt_depth``.
    """

    name: ClassVar[str] = "kitti"

    folder: str = "kitti"
    image_size: int = 256
    num_train: int = 23_000
    num_validation: int = 500
    num_test: int = 697

    def read(self, device: torch.device) -> LabelledSplits:
        """Read a seeded choice of pairs; part of the training pairs validates."""
        root = existing_folder(self.folder, "KITTI")
        places = (root / "input", root / "gt_depth")
        learned = shuffled(read_pairs(root / "kitti_eigen_train.txt", *places), self.seed)
        held, learned = learned[: self.num_validation], learned[self.num_validation :]
        tested = read_pairs(root / "kitti_eigen_test.txt", *places)[: self.num_test]
        how = {"size": self.image_size, "units_per_metre": 256.0, "depth_range": _RANGE}
        return LabelledSplits(
            name="KITTI (Eigen)",
            train=load_pairs(learned[: self.num_train], **how),
            validation=load_pairs(held, **how, crop=garg_crop),
            test=load_pairs(tested, **how, crop=garg_crop),
            depth_range=_RANGE,
        )


def garg_crop(height: int, width: int) -> tuple[int, int, int, int]:
    """What Garg et al. (2016) score."""
    return (
        int(0.40810811 * height),
        int(0.99189189 * height),
        int(0.03594771 * width),
        int(0.96405229 * width),
    )
