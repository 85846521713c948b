"""Placement: where figures stand, so that the picture is clear and its relations are true.

Many layouts are proposed and checked at once; one that keeps every margin is taken.
Shapes: K layouts, n figures. All lengths are fractions of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unimm.data.world.backdrops import NUM_VARIANTS, horizon_of
from unimm.data.world.geometry import (
    FOCAL,
    Array,
    pair_relations,
    reach_of,
    relation_between,
    scene_size,
)
from unimm.data.world.scene import BACKGROUNDS, RELATIONS, Figure, Placed, Scene

__all__ = ["CARRIED_BY", "MAX_FIGURES", "least_sizes", "place", "relation_between"]

# A hint for ``place`` beside ``RELATIONS``: the first figure stands at the second one's side,
# slightly in front, touching it. It is no relation that a caption words.
CARRIED_BY = "carried by"

MAX_FIGURES = 7
MARGIN = 0.015  # kept free at every side
LOWEST = 0.96  # nothing stands below
TALLEST = 88 / 128  # of a face or an object, headwear not counted

# Tried in turn: layouts proposed, and the share of a figure that others may hide.
_ROUNDS = ((24, 0.08), (64, 0.2), (192, 0.34), (512, 0.5))
_MOST_HIDDEN = 0.55  # the same where a worded relation wants one before the other
_DEPTH_STEP, _CARRY_STEP = 1.1, 1.02  # least ratio of depths of one before the other

Relation = tuple[int, str, int]


def least_sizes(figures: Sequence[Figure]) -> list[float]:
    """Smallest size, a fraction of the picture, at which each figure is still well seen."""
    if len(figures) > 3:
        return [24 / 128] * len(figures)
    # Three faces of 56 are wider than the picture.
    face = 48 if sum(figure.is_character for figure in figures) == 3 else 56
    thing = 44 if len(figures) <= 2 else 36
    return [(face if figure.is_character else thing) / 128 for figure in figures]


@dataclass(frozen=True, kw_only=True)
class _Move:
    """One figure that is put before another: ``front`` follows where ``rear`` stands."""

    front: int
    rear: int
    is_close: bool


@dataclass(frozen=True, kw_only=True)
class _Task:
    """What does not change between proposals of one scene."""

    horizon: float
    sizes: Array  # (n,) in scene units
    least: Array  # (n,)
    reach: Array  # (3, n)
    relations: Sequence[Relation]
    moves: Sequence[_Move]

    def farthest(self) -> float:
        """Height of the camera from which all can just be tall enough."""
        return float((FOCAL * self.sizes * self._room() / self.least).min())

    def _room(self) -> Array:
        """How far below the horizon each figure may stand, so that others fit before it."""
        room = np.full(len(self.sizes), LOWEST - self.horizon)
        for move in self.moves:
            room[move.rear] /= _CARRY_STEP if move.is_close else _DEPTH_STEP
        return room

    def band(self, camera: float) -> tuple[Array, Array]:
        """Nearest to the horizon and lowest that each figure may stand; ``(n,)`` each."""
        unit = camera / (FOCAL * self.sizes)
        tallest = np.minimum(TALLEST, (LOWEST - 2 * MARGIN) / self.reach[1])
        lowest = self.least * unit
        highest = np.minimum(tallest * unit, self._room())
        return self.horizon + lowest, self.horizon + np.maximum(lowest, highest)


def _moves(relations: Sequence[Relation]) -> list[_Move]:
    moves = []
    for i, name, j in relations:
        if name in ("in front of", CARRIED_BY):
            moves.append(_Move(front=i, rear=j, is_close=name == CARRIED_BY))
        elif name == "behind":
            moves.append(_Move(front=j, rear=i, is_close=False))
    return sorted(moves, key=lambda move: move.is_close)


def _camera(rng: np.random.Generator, task: _Task, turn: int) -> float:
    """Height of the camera; at the farthest all stand at the lower edge, as small as allowed."""
    count = len(task.sizes)
    low, high = (0.66, 0.93) if count == 1 else (0.86, 0.97) if count <= 3 else (0.66, 0.82)
    squeeze = turn / (len(_ROUNDS) - 1)
    return task.farthest() * (high - (high - low) * rng.random() * (1 - squeeze))


def _row(draws: Array, half: Array, inside: NDArray[np.bool_]) -> Array:
    """Middles of the figures of one row, in random order with random gaps; ``(K, n)``."""
    order, gaps = draws[:, 1], (draws[:, 2] + 0.05) * inside
    before = (order[:, :, None] > order[:, None, :]) & inside[:, None, :]
    width = 2 * half * inside
    filled = (before * width[:, None, :]).sum(2) + half
    last = draws[:, 3, :1] + 0.05
    share = (before * gaps[:, None, :]).sum(2) + gaps
    share /= gaps.sum(1, keepdims=True) + last
    slack = 1 - 2 * MARGIN - width.sum(1, keepdims=True)
    packed = MARGIN + filled + slack * share
    # Too wide for one row: middles spread evenly from edge to edge, overlapping alike.
    rank = before.sum(2) / np.maximum(inside.sum(1, keepdims=True) - 1, 1)
    first = MARGIN + half
    return np.where(slack > 0, packed, first + rank * (1 - 2 * first))


def _propose(draws: Array, task: _Task, camera: float) -> tuple[Array, Array, Array]:
    """Propose layouts: ``x``, ``y`` and ``size``, ``(K, n)`` each.

    Up to three figures stand in one row, more in two. One that must stand before or at the
    side of another is put there afterwards.
    """
    num, _, n = draws.shape
    lowest, highest = task.band(camera)
    share = draws[:, 0]
    is_back = np.zeros((num, n), dtype=bool)
    if n > 3:
        is_back = draws[:, 4].argsort(axis=1).argsort(axis=1) < (n + 1) // 2
        share = np.where(is_back, 0.3 * share, 1 - 0.3 * share)
    y = lowest + share * (highest - lowest)
    size = FOCAL * task.sizes * (y - task.horizon) / camera

    for i, name, j in task.relations:
        if name in ("left of", "right of"):
            keys = np.sort(draws[:, 1, [i, j]], axis=1)
            draws[:, 1, [i, j]] = keys if name == "left of" else keys[:, ::-1]
    moved = [move.front for move in task.moves]
    is_front = ~is_back
    is_front[:, moved] = is_back[:, moved] = False
    x = _row(draws, size * task.reach[0], is_front)
    if n > 3:
        x = np.where(is_back, _row(draws, size * task.reach[0], is_back), x)
    for move in task.moves:
        _apply(move, draws, task, camera, x, y, size)
    # Short numbers for a readable JSON, rounded before anything is checked.
    x, y = x.round(4), y.round(4)
    return x, y, FOCAL * task.sizes * (y - task.horizon) / camera


def _apply(
    move: _Move, draws: Array, task: _Task, camera: float, x: Array, y: Array, size: Array
) -> None:
    """Put one figure before another, in place."""
    front, rear = move.front, move.rear
    near = y[:, rear] - task.horizon
    if move.is_close:  # before everybody else too, so that nobody hides what is carried
        step = _CARRY_STEP + 0.04 * draws[:, 2, front]
        near = np.maximum(near * step, (np.delete(y, front, 1).max(1) - task.horizon) * 1.01)
        apart = 0.52 + 0.24 * draws[:, 1, front]
    else:
        near = near * (_DEPTH_STEP + 0.25 * draws[:, 2, front])
        apart = 0.48 + 0.18 * draws[:, 1, front]
    near = np.minimum(near, LOWEST - task.horizon)
    y[:, front] = task.horizon + near
    size[:, front] = FOCAL * task.sizes[front] * near / camera
    width = size[:, front] * task.reach[0, front] + size[:, rear] * task.reach[0, rear]
    x[:, front] = x[:, rear] + np.where(draws[:, 3, front] < 0.5, -1, 1) * apart * width


def _hidden(x: Array, y: Array, half: Array, tall: Array) -> Array:
    """Share of the box of figure ``i`` that a nearer ``j`` covers; ``(K, n, n)``."""
    left, right, top = x - half, x + half, y - tall
    wide = np.minimum(right[:, :, None], right[:, None])
    wide = wide - np.maximum(left[:, :, None], left[:, None])
    high = np.minimum(y[:, :, None], y[:, None]) - np.maximum(top[:, :, None], top[:, None])
    is_covered = y[:, :, None] < y[:, None]
    return wide.clip(0) * high.clip(0) * is_covered / (2 * half * tall)[:, :, None]


def _choose(task: _Task, x: Array, y: Array, size: Array, overlap: float) -> int | None:
    """A layout that keeps every margin and relation, if there is one."""
    half = size * task.reach[0]
    good = (x - half >= MARGIN) & (x + half <= 1 - MARGIN) & (y <= LOWEST + 1e-9)
    good &= (y - size * task.reach[1] >= MARGIN) & (size <= TALLEST + 1e-9)
    good = (good & (size >= task.least - 1e-9)).all(1)
    if x.shape[1] == 1:
        return int(good.argmax()) if good.any() else None
    hidden = _hidden(x, y, half, size * task.reach[2])
    if task.relations:
        pairs = pair_relations(x, y, half, task.horizon)
        for i, name, j in task.relations:
            if name in pairs:
                good &= pairs[name][:, i, j]
        for move in task.moves:
            good &= hidden[:, move.rear, move.front] <= _MOST_HIDDEN
            hidden[:, move.rear, move.front] = 0
    worst = np.where(good, hidden.sum(2).max(1), np.inf)
    # Where there is room any clear layout, so that all places are drawn; else the clearest.
    is_roomy = overlap == _ROUNDS[0][1] and x.shape[1] <= 3
    best = int((worst <= overlap).argmax() if is_roomy else worst.argmin())
    return best if worst[best] <= overlap else None


def place(
    rng: np.random.Generator,
    figures: Sequence[Figure],
    *,
    background: str | None = None,
    variant: int | None = None,
    relations: Sequence[Relation] = (),
    min_height: float | None = None,
) -> Scene:
    """Find a place for every figure.

    Args:
        rng: the sample's own stream.
        figures: 1 to ``MAX_FIGURES``, in the order in which captions name them.
        background: one of ``BACKGROUNDS``; drawn when missing.
        variant: which look of it; drawn when missing.
        relations: ``(i, relation, j)`` that must hold without doubt, of ``RELATIONS``, or
            ``CARRIED_BY`` for an object at a character's side.
        min_height: smallest size of any figure as a fraction of the picture; by default
            ``least_sizes``.

    Raises:
        ValueError: when the figures do not fit or the relations contradict each other.
    """
    n = len(figures)
    if not 1 <= n <= MAX_FIGURES:
        raise ValueError(f"{n} figures; a scene holds 1 to {MAX_FIGURES}")
    for i, name, j in relations:
        if name not in (*RELATIONS, CARRIED_BY) or not (0 <= i < n and 0 <= j < n and i != j):
            known = (*RELATIONS, CARRIED_BY)
            raise ValueError(f"relation {(i, name, j)} of {n} figures; known: {known}")
    if background is None:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    if variant is None:
        variant = int(rng.integers(NUM_VARIANTS))
    task = _Task(
        horizon=horizon_of(background, variant),
        sizes=np.array([scene_size(figure) for figure in figures]),
        least=np.array([min_height] * n if min_height else least_sizes(figures)),
        reach=reach_of(figures),
        relations=relations,
        moves=_moves(relations),
    )
    for turn, (num, overlap) in enumerate(_ROUNDS):
        camera = round(_camera(rng, task, turn), 4)
        x, y, size = _propose(rng.random((num, 5, n)), task, camera)
        best = _choose(task, x, y, size, overlap)
        if best is None:
            continue
        flips = rng.random(n) < 0.5
        placed = tuple(
            Placed(figure=figures[k], x=float(x[best, k]), y=float(y[best, k]), is_flipped=flip)
            for k, flip in enumerate(flips.tolist())
        )
        return Scene(
            background=background,
            variant=variant,
            horizon=task.horizon,
            camera_height=camera,
            placed=placed,
        )
    kinds = [figure.kind for figure in figures]
    raise ValueError(f"no room for {kinds} with {list(relations)}; ask for fewer or smaller ones")
