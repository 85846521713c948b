"""The renderer: scenes to pixels, depth, ids and boxes, in batches on the CPU or on the GPU.

``pack_scenes`` turns scenes into small arrays (a data worker can do it), ``Renderer`` draws them.
Figures are cut from an atlas of composed sprites, filled on demand, and pasted far to near.
Figures of one paint step belong to different scenes, so each step is a few batched operations
on windows just large enough; windows of similar size share a call.

Shapes: B scenes, N most figures of one scene, F figures of the batch, S side of a picture,
W side of a window, K keypoints of a figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

from unimm.data.world.art import CANVAS, FOOT, NUM_KEYPOINTS, SOLID, UNIT, Sprite, compose
from unimm.data.world.backdrops import NUM_VARIANTS, backdrop
from unimm.data.world.placement import apparent_size
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

FAR = 20.0  # depth of the sky and the largest depth of the ground, in scene units
_LEVELS = 4  # mip levels of a sprite: 160, 80, 40, 20 pixels
_STEP = 8  # windows have sides of multiples of this
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


@dataclass(frozen=True)
class Render:
    """Pictures and their exact truth; everything but ``rgb`` is None when only that was asked.

    Attributes:
        rgb: ``(B, 3, S, S)`` uint8.
        depth: ``(B, S, S)`` float32 in scene units, ``FAR`` in the sky.
        ids: ``(B, S, S)`` int16, 0 for the backdrop, else the figure's place in the scene + 1.
        validity: ``(B, S, S)`` bool, False in the sky, which has no depth.
        figure_mask: ``(B, S, S)`` float32, how much of a pixel figures cover.
        boxes: ``(B, N, 4)`` float32, left, top, right, bottom in pixels of the whole figure
            with its headwear, also where another hides it; zeros where there is no figure.
        visibility: ``(B, N)`` float32, share of a figure's pixels that is seen.
        keypoints: ``(B, N, K, 2)`` float32, x and y in pixels of fixed points of the figure.
        is_keypoint_seen: ``(B, N, K)`` bool.
    """

    rgb: Tensor
    depth: Tensor | None = None
    ids: Tensor | None = None
    validity: Tensor | None = None
    figure_mask: Tensor | None = None
    boxes: Tensor | None = None
    visibility: Tensor | None = None
    keypoints: Tensor | None = None
    is_keypoint_seen: Tensor | None = None


@cache
def _backdrops(size: int) -> Tensor:
    """All backdrops at one size: ``(6 * NUM_VARIANTS, 3, size, size)`` uint8."""
    masters = [backdrop(name, v) for name in BACKGROUNDS for v in range(NUM_VARIANTS)]
    pixels = torch.from_numpy(np.stack(masters)).permute(0, 3, 1, 2).float()
    small = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


class Renderer:
    """Draws scenes; holds the sprites and backdrops that it has met on its device.

    Same scene, same pixels: nothing is random here. Grows by about 130 kB a look.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._slot = np.full(NUM_LOOKS, -1, dtype=np.int64)
        self._num = 0
        self._levels = [self._empty(64, CANVAS >> level) for level in range(_LEVELS)]
        self._windows = np.zeros((64, 4), dtype=np.float32)
        self._boxes = np.zeros((64, 4), dtype=np.float32)
        self._keypoints = np.zeros((64, NUM_KEYPOINTS, 2), dtype=np.float32)
        self._backdrops: dict[int, Tensor] = {}

    def _empty(self, count: int, side: int) -> Tensor:
        return torch.zeros(count, 4, side, side, dtype=torch.uint8, device=self.device)

    def _add(self, look: int) -> None:
        sprite: Sprite = compose(figure_of(look))
        if self._num == len(self._windows):
            for name in ("_windows", "_boxes", "_keypoints"):
                table = getattr(self, name)
                setattr(self, name, np.concatenate([table, np.zeros_like(table)]))
            self._levels = [torch.cat([old, torch.zeros_like(old)]) for old in self._levels]
        for level, atlas in enumerate(self._levels):
            small = avg_pool2d(sprite.rgba[None], 1 << level)[0] if level else sprite.rgba
            atlas[self._num] = (small * 255).round().to(torch.uint8)
        self._windows[self._num], self._boxes[self._num] = sprite.window, sprite.box
        self._keypoints[self._num] = sprite.keypoints
        self._slot[look] = self._num
        self._num += 1

    def _slots(self, look: NDArray[np.int64]) -> NDArray[np.int64]:
        """Atlas places of looks, composing those never met."""
        for missing in np.unique(look[self._slot[look] < 0]):
            self._add(int(missing))
        return self._slot[look]

    def _backdrop(self, packed: PackedScenes, size: int) -> Tensor:
        if size not in self._backdrops:
            self._backdrops[size] = _backdrops(size).to(self.device)
        index = torch.from_numpy(packed.backdrop).to(self.device)
        return self._backdrops[size][index].float()  # (B, 3, S, S)

    def render(self, scenes: Sequence[Scene], *, size: int, only_rgb: bool = False) -> Render:
        """Draw scenes; see ``render_packed``."""
        return self.render_packed(pack_scenes(scenes), size=size, only_rgb=only_rgb)

    def render_packed(self, packed: PackedScenes, *, size: int, only_rgb: bool = False) -> Render:
        """Draw a batch of packed scenes on this renderer's device.

        Args:
            packed: the scenes.
            size: side of the pictures in pixels, 16 to 256.
            only_rgb: leave out everything but the pictures, which is faster.

        Raises:
            ValueError: on a size out of range.
        """
        if not 16 <= size <= 256:
            raise ValueError(f"pictures of {size} pixels; choose a side of 16 to 256")
        figures = _Figures.of(packed, self, size)
        canvas = self._backdrop(packed, size)
        if only_rgb:
            for step in figures.steps():
                self._paste(canvas, step)
            return Render(rgb=canvas.round_().clamp_(0, 255).to(torch.uint8))
        raise NotImplementedError

    def _cut(self, step: "_Step") -> Tensor:
        """Sample sprites in their windows: ``(F, 4, W, W)`` in [0, 255], premultiplied."""
        sprites = self._levels[step.level][step.slot.to(self.device)].float()
        place = step.transform.to(self.device)
        along = torch.arange(step.side, device=self.device, dtype=torch.float32)
        x = place[:, 0:1] * along + place[:, 1:2]  # (F, W)
        y = place[:, 2:3] * along + place[:, 3:4]
        grid = torch.stack(
            [x[:, None, :].expand(-1, step.side, -1), y[:, :, None].expand(-1, -1, step.side)], -1
        )
        return grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")

    def _paste(self, canvas: Tensor, step: "_Step") -> None:
        cut = self._cut(step)
        keep = 1 - cut[:, 3:] / 255
        for f, (b, top, left) in enumerate(step.corner):
            window = canvas[b, :, top : top + step.side, left : left + step.side]
            window.mul_(keep[f]).add_(cut[f, :3])


@dataclass(frozen=True)
class _Step:
    """Figures of different scenes that are pasted in one go."""

    level: int
    side: int
    slot: Tensor
    transform: Tensor
    corner: list[list[int]]


@dataclass(frozen=True)
class _Figures:
    """Where the figures of a batch lie in pixels, sorted into steps; all ``(F,)`` or ``(F, 4)``."""

    scene: NDArray[np.int64]
    index: NDArray[np.int64]
    order: NDArray[np.int64]
    slot: NDArray[np.int64]
    level: NDArray[np.int64]
    side: NDArray[np.int64]
    corner: NDArray[np.int64]
    transform: NDArray[np.float32]

    @staticmethod
    def of(packed: PackedScenes, renderer: Renderer, size: int) -> "_Figures":
        is_there = packed.look >= 0
        scene, index = is_there.nonzero()
        # Painter's order: how many figures of the scene are farther, earlier ones first on ties.
        depth = np.where(is_there, packed.depth, -1.0)
        rank = np.argsort(np.argsort(-depth, axis=1, kind="stable"), axis=1, kind="stable")
        slot = renderer._slots(packed.look[is_there])
        x, y = packed.x[is_there] * size, packed.y[is_there] * size
        scale = packed.scale[is_there] * (size / UNIT)  # picture pixels a canvas pixel
        ratio = np.abs(scale)
        level = np.clip(np.round(np.log2(1 / ratio)), 0, _LEVELS - 1).astype(np.int64)
        window = renderer._windows[slot]
        sides = np.where(scale[:, None] < 0, CANVAS - window[:, [2, 0]], window[:, [0, 2]])
        left = x + (sides[:, 0] - CANVAS / 2) * ratio
        right = x + (sides[:, 1] - CANVAS / 2) * ratio
        top, bottom = y + (window[:, 1] - FOOT) * ratio, y + (window[:, 3] - FOOT) * ratio
        reach = np.maximum(right - left, bottom - top) + 2
        side = np.minimum(np.ceil(reach / _STEP).astype(np.int64) * _STEP, size)
        corner_x = np.clip(np.floor(left - 0.5).astype(np.int64), 0, size - side)
        corner_y = np.clip(np.floor(top - 0.5).astype(np.int64), 0, size - side)
        step = 2 / (CANVAS * scale)  # of the grid, which is 2 wide, a picture pixel
        rise = 2 / (CANVAS * ratio)
        transform = np.stack(
            [
                step,
                (corner_x + 0.5 - x) * step,
                rise,
                (corner_y + 0.5 - y) * rise + 2 * FOOT / CANVAS - 1,
            ],
            axis=1,
        ).astype(np.float32)
        corner = np.stack([scene, corner_y, corner_x], axis=1)
        return _Figures(scene, index, rank[is_there], slot, level, side, corner, transform)

    def steps(self) -> list[_Step]:
        key = (self.order * 64 + self.side // _STEP) * _LEVELS + self.level
        steps = []
        for value in np.unique(key):
            rows = (key == value).nonzero()[0]
            first = rows[0]
            steps.append(
                _Step(
                    int(self.level[first]),
                    int(self.side[first]),
                    torch.from_numpy(self.slot[rows]),
                    torch.from_numpy(self.transform[rows]),
                    self.corner[rows].tolist(),
                )
            )
        return steps
