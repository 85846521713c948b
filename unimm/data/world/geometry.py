"""Geometry of scenes: sizes, depth, and which relations a viewer cannot doubt.

Shapes: K layouts, n figures.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unimm.data.world.art import extent_of
from unimm.data.world.scene import Figure, Placed, Scene

Array = NDArray[np.float64]

FOCAL = 1.0  # picture heights that one scene unit covers at depth 1

# Sizes in scene units of a medium figure: a face's height, an object's longest side. They differ
# less than real ones, so that a face and an apple are both well seen in one picture.
_CHARACTER_SIZE = 1.0
_OTHER_SIZE = 0.84
_SMALL, _BIG = 0.76, 0.94
_SMALL_KINDS = """apple, banana, pear, strawberry, carrot, mushroom, cupcake, ice cream, donut, cup,
    ball, key, bell, book, candle, gem, sprout, tulip, rose, butterfly, bee, ladybug, snail, fish,
    star, magnet, camera, clock"""
_BIG_KINDS = "car, bus, tractor, boat, rocket, house, tent, tree, bicycle, snowman, chair"
_SIZES = {kind: _SMALL for kind in " ".join(_SMALL_KINDS.split()).split(", ")}
_SIZES |= {kind: _BIG for kind in _BIG_KINDS.split(", ")}
_SIZE_WORDS = {"small": 0.85, "medium": 1.0, "large": 1.18}

# Two figures are side by side when their middles are the first share of their half widths' sum
# apart, one before the other when nearer than the second; between, nothing is worded.
_BESIDE, _BESIDE_LEAST = 0.78, 0.10
_OVERLAPPING, _DEPTH_RATIO = 0.68, 1.08


def scene_size(figure: Figure) -> float:
    """A figure's size in scene units: a face's height, an object's longest side."""
    base = _CHARACTER_SIZE if figure.is_character else _SIZES.get(figure.kind, _OTHER_SIZE)
    return base * _SIZE_WORDS[figure.size]


def apparent_size(scene: Scene, placed: Placed) -> float:
    """Size of a placed figure as a fraction of the picture; it falls with depth."""
    return FOCAL * scene_size(placed.figure) * (placed.y - scene.horizon) / scene.camera_height


def reach_of(figures: Sequence[Figure]) -> Array:
    """How far figures reach to either side and upwards, and their height without headwear.

    Returns:
        ``(3, n)`` in units of each figure's own size; the same for a mirrored figure.
    """
    extents = [extent_of(f.style, f.kind, f.headwear) for f in figures]
    return np.array([[max(e.left, e.right), e.up, e.height] for e in extents]).T


def pair_relations(x: Array, y: Array, half: Array, horizon: float) -> dict[str, NDArray[np.bool_]]:
    """Which relations hold without doubt between every two figures of layouts.

    Args:
        x: middles, ``(..., n)``, in fractions of the picture, like all here.
        y: where figures stand, ``(..., n)``.
        half: half widths, ``(..., n)``.
        horizon: its height.

    Returns:
        For each relation ``(..., n, n)``: true at ``[i, j]`` if it holds of ``i`` to ``j``.
    """
    apart = x[..., :, None] - x[..., None, :]
    width = half[..., :, None] + half[..., None, :]
    beside = np.maximum(_BESIDE * width, _BESIDE_LEAST)
    near = y - horizon
    before = near[..., :, None] >= _DEPTH_RATIO * near[..., None, :]
    before &= np.abs(apart) <= _OVERLAPPING * width
    return {
        "left of": apart <= -beside,
        "right of": apart >= beside,
        "in front of": before,
        "behind": np.swapaxes(before, -1, -2),
    }


def relation_between(scene: Scene, i: int, j: int) -> set[str]:
    """Every relation of figure ``i`` to figure ``j`` that a viewer cannot doubt.

    Empty when all are borderline.
    """
    placed = [scene.placed[i], scene.placed[j]]
    x, y = np.array([p.x for p in placed]), np.array([p.y for p in placed])
    reach = reach_of([p.figure for p in placed])
    half = np.array([apparent_size(scene, p) for p in placed]) * reach[0]
    pairs = pair_relations(x, y, half, scene.horizon)
    return {name for name, holds in pairs.items() if holds[0, 1]}
