"""The labelled sets that probes can be given: one file and one line each."""

from unimm.data.labelled.fashion_mnist import FashionMnistConfig
from unimm.data.labelled.furniture import FurnitureConfig
from unimm.data.labelled.imagenet import ImageNetConfig
from unimm.data.labelled.kitti import KittiConfig
from unimm.data.labelled.nyu import NyuConfig
from unimm.data.labelled.sets import LabelledConfig
from unimm.data.labelled.spair import SpairConfig
from unimm.data.labelled.stereo_photo import StereoPhotoConfig
from unimm.data.labelled.storyworld import StoryworldConfig

LABELLED_SETS: dict[str, type[LabelledConfig]] = {
    "storyworld": StoryworldConfig,
    "fashion_mnist": FashionMnistConfig,
    "imagenet": ImageNetConfig,
    "furniture": FurnitureConfig,
    "nyu": NyuConfig,
    "kitti": KittiConfig,
    "spair": SpairConfig,
    "stereo_photo": StereoPhotoConfig,
}
