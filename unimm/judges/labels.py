"""What the detector says of a figure, in words and as class indices.

Legend: ``B`` pictures, ``F`` figures of a picture (padded), ``A`` attributes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from unimm.data.world.scene import (
    BACKGROUNDS,
    HEADWEAR,
    NO_HEADWEAR,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    STYLES,
    Figure,
    Scene,
)

VOCABULARY: dict[str, tuple[str, ...]] = {
    "kind": (*SPECIES, *OBJECTS),
    "tint": OBJECT_TINTS,
    "headwear": (NO_HEADWEAR, *HEADWEAR),
    "style": STYLES,
}
"""Attribute -> its words, in the order of the detector's outputs.

Size words are none of them: how large a figure looks is the product of its size word, its depth and
the height of the camera, which no picture shows, so that nobody could be right about one figure.
"""

ATTRIBUTES: tuple[str, ...] = tuple(VOCABULARY)
GROUPS: tuple[str, ...] = ("character", "object")
NUM_SPECIES = len(SPECIES)  # kinds below this number are characters

_INDEX = {name: {word: i for i, word in enumerate(words)} for name, words in VOCABULARY.items()}
_BACKGROUND_INDEX = {name: i for i, name in enumerate(BACKGROUNDS)}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Ground truth of a batch as tensors.

    Attributes:
        boxes: ``(B, F, 4)`` float32 left, top, right, bottom as fractions of the picture.
        attributes: ``(B, F, A)`` int64 class indices in the order of ``ATTRIBUTES``.
        visibility: ``(B, F)`` float32, the share of a figure that nothing hides; 0 is padding.
        background: ``(B,)`` int64.
    """

    boxes: Tensor
    attributes: Tensor
    visibility: Tensor
    background: Tensor

    def mirrored(self) -> "Labels":
        """Truth of the pictures seen in a mirror."""
        left, top, right, bottom = self.boxes.unbind(-1)
        return replace(self, boxes=torch.stack([1 - right, top, 1 - left, bottom], dim=-1))


def figure_indices(figure: Figure) -> tuple[int, ...]:
    """Class indices of a figure, in the order of ``ATTRIBUTES``."""
    return tuple(_INDEX[name][getattr(figure, name)] for name in ATTRIBUTES)


def scene_indices(scenes: Sequence[Scene], num_slots: int) -> tuple[np.ndarray, np.ndarray]:
    """Class indices of many scenes.

    Args:
        scenes: B scenes.
        num_slots: F; a scene must not have more figures.

    Returns:
        ``(B, F, A)`` int64 attributes, padded with 0, and ``(B,)`` int64 backgrounds.

    Raises:
        ValueError: a scene has more figures than slots.
    """
    attributes = np.zeros((len(scenes), num_slots, len(ATTRIBUTES)), np.int64)
    for row, scene in zip(attributes, scenes, strict=True):
        if len(scene.placed) > num_slots:
            raise ValueError(
                f"{len(scene.placed)} figures do not fit {num_slots} slots; ask for more slots"
            )
        for slot, placed in zip(row, scene.placed, strict=False):
            slot[:] = figure_indices(placed.figure)
    return attributes, np.array([_BACKGROUND_INDEX[scene.background] for scene in scenes])


def words_of(attributes: Sequence[int]) -> dict[str, str]:
    """Words of class indices: attribute -> word."""
    return {name: VOCABULARY[name][i] for name, i in zip(ATTRIBUTES, attributes, strict=True)}
