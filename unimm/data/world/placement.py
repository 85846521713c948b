"""Placement: where figures stand, so that the picture is clear and its relations are true.

Many layouts are proposed and checked at once; the first that keeps every margin is taken.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from unimm.data.world.art import extent_of
from unimm.data.world.backdrops import NUM_VARIANTS, horizon_of
from unimm.data.world.scene import BACKGROUNDS, RELATIONS, Figure, Placed, Scene

# A hint for ``place`` beside ``RELATIONS``: the first figure stands at the second one's side,
# slightly in front, touching it. It is no relation that a caption words.
CARRIED_BY = "carried by"

FOCAL = 1.0  # picture heights that one scene unit covers at depth 1
MARGIN = 0.015  # of the picture, kept free at every side
LOWEST = 0.96  # of the picture, nothing stands below
TALLEST = 88 / 128  # of a face or an object, headwear not counted

# Sizes in scene units of a medium figure: a face's height, an object's longest side.
_CHARACTER_SIZE = 1.0
_SMALL_THINGS = (
    "apple banana pear strawberry carrot mushroom cupcake ice_cream donut cup ball key bell book "
    "candle gem sprout tulip rose butterfly bee ladybug snail fish star magnet camera clock"
)
_BIG_THINGS = "car bus tractor boat rocket house tent tree bicycle snowman chair"
_SIZES = {name.replace("_", " "): 0.76 for name in _SMALL_THINGS.split()}
_SIZES |= {name: 0.94 for name in _BIG_THINGS.split()}
_OTHER_SIZE = 0.84
_SIZE_WORDS = {"small": 0.85, "medium": 1.0, "large": 1.18}

# Two figures are side by side when their middles are this share of their mean width apart,
# one before the other when they are nearer than the second share; between, nothing is worded.
_BESIDE, _BESIDE_LEAST = 0.82, 0.10
_OVERLAPPING, _DEPTH_RATIO = 0.70, 1.08

_MOST_HIDDEN = 0.55  # share of a box that a worded relation may cover
_ROUNDS = ((24, 0.08), (64, 0.2), (192, 0.34), (512, 0.46))  # layouts tried, overlap allowed


def scene_size(figure: Figure) -> float:
    """A figure's size in scene units: a face's height, an object's longest side."""
    base = _CHARACTER_SIZE if figure.is_character else _SIZES.get(figure.kind, _OTHER_SIZE)
    return base * _SIZE_WORDS[figure.size]


def apparent_size(scene: Scene, placed: Placed) -> float:
    """Size of a placed figure as a fraction of the picture; it falls with depth."""
    return FOCAL * scene_size(placed.figure) * (placed.y - scene.horizon) / scene.camera_height


def least_sizes(figures: Sequence[Figure]) -> list[float]:
    """Smallest size, a fraction of the picture, at which each figure is still well seen."""
    if len(figures) > 3:
        return [24 / 128] * len(figures)
    # Three faces of 56 are wider than the picture.
    face = 48 if sum(figure.is_character for figure in figures) == 3 else 56
    thing = 44 if len(figures) <= 2 else 36
    return [(face if figure.is_character else thing) / 128 for figure in figures]


def _reach(figures: Sequence[Figure]) -> NDArray[np.float64]:
    """Left, right and up of each figure in its own size; ``(3, n)``. Flipped ones fit too."""
    extents = [extent_of(f.style, f.kind, f.headwear) for f in figures]
    sides = [max(e.left, e.right) for e in extents]
    return np.array([sides, [e.up for e in extents], [e.height for e in extents]])


def _pairs(
    x: NDArray[np.float64], y: NDArray[np.float64], size: NDArray[np.float64], reach, horizon: float
) -> dict[str, NDArray[np.bool_]]:
    """Which relation holds between every two figures; ``(..., n, n)`` each."""
    half = size * reach[0]
    apart = x[..., :, None] - x[..., None, :]
    width = half[..., :, None] + half[..., None, :]
    beside = np.maximum(_BESIDE * width, _BESIDE_LEAST)
    over = np.abs(apart) <= _OVERLAPPING * width
    near = y - horizon
    nearer = near[..., :, None] >= _DEPTH_RATIO * near[..., None, :]
    return {
        "left of": apart <= -beside,
        "right of": apart >= beside,
        "in front of": over & nearer,
        "behind": over & np.swapaxes(nearer, -1, -2),
    }


def relation_between(scene: Scene, i: int, j: int) -> set[str]:
    """Every relation of figure ``i`` to figure ``j`` that a viewer cannot doubt.

    Empty when all are borderline.
    """
    placed = [scene.placed[i], scene.placed[j]]
    x, y = np.array([p.x for p in placed]), np.array([p.y for p in placed])
    size = np.array([apparent_size(scene, p) for p in placed])
    pairs = _pairs(x, y, size, _reach([p.figure for p in placed]), scene.horizon)
    return {name for name, holds in pairs.items() if holds[0, 1]}


def _camera(
    rng: np.random.Generator, highest: float, count: int, has_depth: bool, squeeze: float
) -> float:
    """Height of the camera; at the highest all figures stand at the lower edge, small."""
    low, high = (0.78, 0.88) if has_depth else (0.86, 0.97)
    if count == 1:
        low, high = 0.66, 0.93
    elif count > 3:
        low, high = 0.66, 0.82
    return highest * (low + (high - low) * rng.random() * (1 - squeeze) + (high - low) * squeeze)


def _propose(draws, sizes, reach, lowest, highest, camera: float, horizon: float, relations):
    """Propose layouts: ``x``, ``y`` and ``size``, ``(K, n)`` each.

    Figures take a random order from left to right and share what room is left between them;
    one that must stand before, behind or at the side of another is then moved there.
    """
    num, n = draws.shape[0], sizes.shape[0]
    y = lowest + draws[:, 0] * (highest - lowest)
    size = FOCAL * sizes * (y - horizon) / camera
    moves = [_move(relation) for relation in relations if relation[1] in _MOVING]
    movers = [mover for mover, _, _ in moves]
    is_back = np.zeros((num, n), dtype=bool)
    if n > 3:
        is_back = y < np.median(y, axis=1, keepdims=True)
    is_back[:, movers] = False
    x = np.where(is_back, _row(draws, size * reach[0], is_back), 0.5)
    is_front = ~is_back
    is_front[:, movers] = False
    x = np.where(is_front, _row(draws, size * reach[0], is_front), x)
    for mover, anchor, close in sorted(moves, key=lambda move: move[2]):
        side = np.where(draws[:, 3, mover] < 0.5, -1.0, 1.0)
        apart = (0.62 if close else 0.48) + 0.2 * draws[:, 1, mover]
        step = 1.03 + (0.05 if close else 0.3) * draws[:, 2, mover] + (0 if close else 0.06)
        near = (y[:, anchor] - horizon) * step
        y[:, mover] = horizon + near
        size[:, mover] = FOCAL * sizes[mover] * near / camera
        width = size[:, mover] * reach[0, mover] + size[:, anchor] * reach[0, anchor]
        x[:, mover] = x[:, anchor] + side * apart * width
    return x, y, size


_MOVING = ("in front of", "behind", CARRIED_BY)


def _move(relation: tuple[int, str, int]) -> tuple[int, int, bool]:
    """Which figure is put before which, and whether it is held."""
    i, name, j = relation
    return (j, i, False) if name == "behind" else (i, j, name == CARRIED_BY)


def _row(draws, half, inside) -> NDArray[np.float64]:
    """Middles of the figures of one row, in random order with random gaps; ``(K, n)``."""
    order, gaps = draws[:, 1], (draws[:, 2] + 0.05) * inside
    before = (order[:, :, None] > order[:, None, :]) & inside[:, None, :]
    width = 2 * half * inside
    filled = (before * width[:, None, :]).sum(2) + half
    ends = 0.6 * draws[:, 3, :1] + 0.1
    share = (before * gaps[:, None, :]).sum(2) + ends
    share /= gaps.sum(1, keepdims=True) + ends + 0.4
    slack = 1 - 2 * MARGIN - width.sum(1, keepdims=True)
    packed = MARGIN + filled + slack * share
    # Too wide for one row: middles spread evenly from edge to edge, overlapping alike.
    rank = before.sum(2) / np.maximum(inside.sum(1, keepdims=True) - 1, 1)
    first = MARGIN + half
    return np.where(slack > 0, packed, first + rank * (1 - 2 * first))


def _hidden(x, y, size, reach) -> NDArray[np.float64]:
    """Share of each figure's box that another one in front of it covers; ``(K, n, n)``."""
    half, tall = size * reach[0], size * reach[2]
    left, right, top = x - half, x + half, y - tall
    wide = np.minimum(right[:, :, None], right[:, None]) - np.maximum(
        left[:, :, None], left[:, None]
    )
    high = np.minimum(y[:, :, None], y[:, None]) - np.maximum(top[:, :, None], top[:, None])
    is_covered = y[:, :, None] < y[:, None]
    return wide.clip(0) * high.clip(0) * is_covered / (2 * half * tall)[:, :, None]


def _valid(x, y, size, reach, least, horizon: float, relations, overlap: float):
    """Which layouts keep every margin and relation; ``(K,)`` bool."""
    half = size * reach[0]
    good = (x - half >= MARGIN) & (x + half <= 1 - MARGIN) & (y <= LOWEST)
    good &= (y - size * reach[1] >= MARGIN) & (size >= least) & (size <= TALLEST)
    good = good.all(1)
    hidden = _hidden(x, y, size, reach)
    pairs = _pairs(x, y, size, reach, horizon) if relations else {}
    for i, relation, j in relations:
        if relation in pairs:
            good &= pairs[relation][:, i, j]
        if relation not in ("left of", "right of"):
            front, rear, _ = _move((i, relation, j))
            good &= hidden[:, rear, front] <= _MOST_HIDDEN
            hidden[:, rear, front] = 0
    return good & (hidden.max((1, 2)) <= overlap)


def place(
    rng: np.random.Generator,
    figures: Sequence[Figure],
    *,
    background: str | None = None,
    variant: int | None = None,
    relations: Sequence[tuple[int, str, int]] = (),
    min_height: float | None = None,
) -> Scene:
    """Find a place for every figure.

    Args:
        rng: the sample's own stream.
        figures: 1 to 7 figures, in the order in which captions name them.
        background: one of ``BACKGROUNDS``; drawn when missing.
        variant: which look of it; drawn when missing.
        relations: ``(i, relation, j)`` that must hold without doubt, of ``RELATIONS``, or
            ``CARRIED_BY`` for an object at a character's side.
        min_height: smallest size of any figure as a fraction of the picture; by default
            characters are at least 56/128 and objects 44/128 (36/128 of three figures, and all
            are at least 24/128 of more).

    Raises:
        ValueError: when the figures do not fit or the relations contradict each other.
    """
    n = len(figures)
    if not 1 <= n <= 7:
        raise ValueError(f"{n} figures; a scene holds 1 to 7")
    for i, relation, j in relations:
        if relation not in (*RELATIONS, CARRIED_BY) or not (0 <= i < n and 0 <= j < n and i != j):
            raise ValueError(f"relation {(i, relation, j)} of {n} figures; known: {RELATIONS}")
    if background is None:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    if variant is None:
        variant = int(rng.integers(NUM_VARIANTS))
    horizon = horizon_of(background, variant)
    sizes = np.array([scene_size(figure) for figure in figures])
    least = np.array([min_height] * n if min_height else least_sizes(figures))
    reach = _reach(figures)
    has_depth = any(relation in ("in front of", "behind") for _, relation, _ in relations)
    farthest = float((FOCAL * sizes * (LOWEST - 0.01 - horizon) / least).min())
    for turn, (num, overlap) in enumerate(_ROUNDS):
        camera = _camera(rng, farthest, n, has_depth, turn / (len(_ROUNDS) - 1))
        lowest = horizon + least * camera / (FOCAL * sizes)
        tallest = np.minimum(TALLEST, 0.9 / reach[1])
        highest = np.minimum(horizon + tallest * camera / (FOCAL * sizes), LOWEST)
        draws = rng.random((num, 5, n))
        x, y, size = _propose(
            draws, sizes, reach, lowest, np.maximum(lowest, highest), camera, horizon, relations
        )
        good = _valid(x, y, size, reach, least - 1e-9, horizon, relations, overlap)
        if good.any():
            best = int(good.argmax())
            flips = rng.random(n) < 0.5
            placed = tuple(
                Placed(figure=f, x=round(float(a), 4), y=round(float(b), 4), is_flipped=bool(c))
                for f, a, b, c in zip(figures, x[best], y[best], flips, strict=True)
            )
            return Scene(
                background=background,
                variant=variant,
                horizon=horizon,
                camera_height=round(float(camera), 4),
                placed=placed,
            )
    kinds = [figure.kind for figure in figures]
    raise ValueError(f"no room for {kinds} with {list(relations)}; ask for fewer or smaller ones")
