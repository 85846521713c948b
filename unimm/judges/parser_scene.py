"""What the parser found, as a scene that can be drawn, and in the words of a judge.

Shapes: B pictures, N most figures of one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from unimm.data.world.art import UNIT
from unimm.data.world.backdrops import NUM_VARIANTS, horizon_of
from unimm.data.world.packing import PackedScenes, look_of
from unimm.data.world.render import Render, Renderer
from unimm.data.world.scene import BACKGROUNDS, Figure
from unimm.judges.labels import ATTRIBUTES, VOCABULARY
from unimm.judges.sightings import Detection, Sighting


@dataclass(frozen=True)
class Found:
    """One figure that redraws its part of a picture.

    Attributes:
        figure: its look; its size word is not known.
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
    background, _ = _name(backdrop)
    corners = (boxes / size).clamp(0, 1).tolist()
    detections = []
    for one, box in zip(found, corners, strict=False):
        said = {name: getattr(one.figure, name) for name in ATTRIBUTES}
        is_said = [known == said[name] for name in ATTRIBUTES for known in VOCABULARY[name]]
        detections.append(
            Detection(
                **said, box=tuple(box), score=1.0, probabilities=np.array(is_said, dtype=np.float32)
            )
        )
    return Sighting(background, detections)


def _name(backdrop: int) -> tuple[str, int]:
    number, variant = divmod(backdrop, NUM_VARIANTS)
    return BACKGROUNDS[number], variant
