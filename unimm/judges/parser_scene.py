"""What the parser found, as a scene that can be drawn, and in the words of a judge.

Shapes: B pictures, N most figures of one picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from unimm.data.world.art import UNIT
from unimm.data.world.backdrops import NUM_VARIANTS, horizon_of
from unimm.data.world.geometry import FOCAL, scene_size
from unimm.data.world.packing import PackedScenes, look_of
from unimm.data.world.render import Render, Renderer
from unimm.data.world.scene import BACKGROUNDS, SIZES, Figure
from unimm.judges.labels import ATTRIBUTES, VOCABULARY
from unimm.judges.sightings import Detection, Sighting

_SAME_CAMERA = 0.04  # figures of one picture agree so well on the camera's height (a logarithm)


@dataclass(frozen=True)
class Found:
    """One figure that redraws its part of a picture.

    Attributes:
        figure: its look; the size word is not known yet.
        x, y: where it stands, in pixels.
        ratio: picture pixels a canvas pixel.
        side: -1 if it is mirrored, else 1.
    """

    figure: Figure
    x: float
    y: float
    ratio: float
    side: float


def redraw(
    backdrop: Sequence[int], found: Sequence[Sequence[Found]], renderer: Renderer, size: int
) -> Render:
    """Draw what was found, ``(B, 3, size, size)``, with the box of each figure.

    Args:
        backdrop: background times ``NUM_VARIANTS`` plus variant, of each picture.
        found: figures of each picture.
        renderer: draws.
        size: side of the pictures.
    """
    num, most = len(found), max((len(figures) for figures in found), default=0)
    look = np.full((num, most), -1, dtype=np.int64)
    parts = np.zeros((4, num, most), dtype=np.float32)
    for b, figures in enumerate(found):
        for k, one in enumerate(figures):
            look[b, k] = look_of(one.figure)
            height = one.ratio * UNIT / size
            # What stands lower is nearer; the camera's height would only scale all depths.
            parts[:, b, k] = one.x / size, one.y / size, height * one.side, size / one.y
    horizon = np.array([horizon_of(*_name(index)) for index in backdrop], dtype=np.float32)
    packed = PackedScenes(np.array(backdrop), horizon, np.ones_like(horizon), look, *parts)
    return renderer.render_packed(packed, size=size)


def sighting_of(backdrop: int, found: Sequence[Found], boxes: Tensor, size: int) -> Sighting:
    """Say what was found as the detector would, all of it equally sure.

    Args:
        backdrop: as in ``redraw``.
        found: figures of the picture.
        boxes: ``(N, 4)`` left, top, right, bottom in pixels.
        size: side of the picture.
    """
    background, variant = _name(backdrop)
    words = size_words(found, horizon_of(background, variant) * size)
    corners = (boxes / size).clamp(0, 1).tolist()
    detections = []
    for one, word, box in zip(found, words, corners, strict=False):
        figure = replace(one.figure, size=word)
        said = {name: getattr(figure, name) for name in ATTRIBUTES}
        is_said = [known == said[name] for name in ATTRIBUTES for known in VOCABULARY[name]]
        detections.append(
            Detection(
                **said, box=tuple(box), score=1.0, probabilities=np.array(is_said, dtype=np.float32)
            )
        )
    return Sighting(background, detections)


def size_words(found: Sequence[Found], horizon: float) -> list[str]:
    """Size words under which all figures are seen by one camera, as many medium as can be.

    A figure's size tells the product of its size word and the camera's height. One figure alone
    tells nothing, so it is medium.

    Args:
        found: figures of one picture.
        horizon: its height in pixels.
    """
    heights = [
        {word: math.log(_camera_height(one, word, horizon)) for word in SIZES} for one in found
    ]
    best, most = ["medium"] * len(found), (-1, -1, 0.0)
    for camera in sorted({height for table in heights for height in table.values()}):
        words = [min(SIZES, key=lambda word: abs(table[word] - camera)) for table in heights]
        errors = [abs(table[w] - camera) for table, w in zip(heights, words, strict=True)]
        # Medium and large look nearly as small and medium do: the exact ratio decides last.
        agreeing = sum(error < _SAME_CAMERA for error in errors)
        score = (agreeing, words.count("medium"), -sum(errors))
        if score > most:
            best, most = words, score
    return best


def _camera_height(one: Found, word: str, horizon: float) -> float:
    size = scene_size(replace(one.figure, size=word))
    return FOCAL * size * max(one.y - horizon, 1e-3) / (one.ratio * UNIT)


def _name(backdrop: int) -> tuple[str, int]:
    number, variant = divmod(backdrop, NUM_VARIANTS)
    return BACKGROUNDS[number], variant
