"""The labelled sets that probes can be given: one file and one line each."""

from unimm.data.labelled.fashion_mnist import FashionMnistConfig
from unimm.data.labelled.sets import LabelledConfig
from unimm.data.labelled.storyworld import StoryworldConfig

LABELLED_SETS: dict[str, type[LabelledConfig]] = {
    "storyworld": StoryworldConfig,
    "fashion_mnist": FashionMnistConfig,
}
