"""Scenes as small arrays: what a data worker hands to the renderer.

Shapes: B scenes, N most figures of one scene.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unimm.data.world.backdrops import NUM_VARIANTS
from unimm.data.world.geometry import apparent_size
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

_KINDS = (*SPECIES, *OBJECTS)
_HATS = (NO_HEADWEAR, *HEADWEAR)
NUM_LOOKS = len(STYLES) * len(_KINDS) * len(OBJECT_TINTS) * len(_HATS)


def look_of(figure: Figure) -> int:
    """A number for how a figure looks: style, kind, tint and headwear."""
    index = STYLES.index(figure.style) * len(_KINDS) + _KIND_INDEX[figure.kind]
    index = index * len(OBJECT_TINTS) + OBJECT_TINTS.index(figure.tint)
    return index * len(_HATS) + _HATS.index(figure.headwear)


_KIND_INDEX = {kind: index for index, kind in enumerate(_KINDS)}


def figure_of(look: int) -> Figure:
    """The figure (of medium size) that has a look."""
    look, hat = divmod(look, len(_HATS))
    look, tint = divmod(look, len(OBJECT_TINTS))
    style, kind = divmod(look, len(_KINDS))
    return Figure(
        kind=_KINDS[kind], tint=OBJECT_TINTS[tint], headwear=_HATS[hat], style=STYLES[style]
    )


@dataclass(frozen=True)
class PackedScenes:
    """Scenes as arrays, ready to be drawn at any size.

    Attributes:
        backdrop: ``(B,)`` int64, background times ``NUM_VARIANTS`` plus variant.
        horizon, camera_height: ``(B,)`` float32.
        look: ``(B, N)`` int64, -1 where a scene has fewer figures.
        x, y: ``(B, N)`` float32, where a figure stands.
        scale: ``(B, N)`` float32, apparent size, negative for a mirrored figure.
        depth: ``(B, N)`` float32.
    """

    backdrop: NDArray[np.int64]
    horizon: NDArray[np.float32]
    camera_height: NDArray[np.float32]
    look: NDArray[np.int64]
    x: NDArray[np.float32]
    y: NDArray[np.float32]
    scale: NDArray[np.float32]
    depth: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.backdrop)

    def __getitem__(self, rows: Any) -> "PackedScenes":
        """Some of the scenes: a slice or an index array."""
        return PackedScenes(*(getattr(self, field.name)[rows] for field in fields(self)))


def pack_scenes(scenes: Sequence[Scene]) -> PackedScenes:
    """Turn scenes into arrays; a few microseconds a scene."""
    num, most = len(scenes), max((len(scene.placed) for scene in scenes), default=0)
    whole = np.zeros((3, num), dtype=np.float64)
    look = np.full((num, most), -1, dtype=np.int64)
    parts = np.zeros((4, num, most), dtype=np.float32)
    for b, scene in enumerate(scenes):
        index = BACKGROUNDS.index(scene.background) * NUM_VARIANTS + scene.variant
        whole[:, b] = index, scene.horizon, scene.camera_height
        for k, placed in enumerate(scene.placed):
            size = apparent_size(scene, placed)
            depth = scene.camera_height / max(placed.y - scene.horizon, 1e-3)
            look[b, k] = look_of(placed.figure)
            parts[:, b, k] = placed.x, placed.y, -size if placed.is_flipped else size, depth
    single = whole[1:].astype(np.float32)
    return PackedScenes(whole[0].astype(np.int64), single[0], single[1], look, *parts)
