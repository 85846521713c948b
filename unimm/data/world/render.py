"""The renderer: scenes to pixels, depth, ids and boxes, in batches on the CPU or on the GPU.

``pack_scenes`` turns scenes into small arrays (a data worker can do it), ``Renderer`` draws them.
Figures are cut from an atlas of composed sprites, filled on demand, and pasted far to near.
Figures of one paint step belong to different scenes, so each step is a few batched operations
on windows just large enough; windows of similar size share a call.

Shapes: B scenes, N most figures of one scene, F figures of the batch, S side of a picture,
W side of a window, K keypoints of a figure.
"""

import itertools
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

FAR = 20.0  # depth of the sky and the largest depth of the ground, in scene units
_LEVELS = 4  # mip levels of a sprite: 160, 80, 40, 20 pixels
_QUANTUM = 8  # windows have sides of multiples of this
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
        figure_mask: ``(B, S, S)`` bool, where ``ids`` is not 0.
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
        self.windows = np.zeros((64, 4), dtype=np.float32)
        self.boxes = np.zeros((64, 4), dtype=np.float32)
        self.keypoints = np.zeros((64, NUM_KEYPOINTS, 2), dtype=np.float32)
        self._backdrops: dict[int, Tensor] = {}

    def _empty(self, count: int, side: int) -> Tensor:
        return torch.zeros(count, 4, side, side, dtype=torch.uint8, device=self.device)

    def _add(self, look: int) -> None:
        sprite: Sprite = compose(figure_of(look))
        if self._num == len(self.windows):
            for name in ("windows", "boxes", "keypoints"):
                table = getattr(self, name)
                setattr(self, name, np.concatenate([table, np.zeros_like(table)]))
            self._levels = [torch.cat([old, torch.zeros_like(old)]) for old in self._levels]
        for level, atlas in enumerate(self._levels):
            small = avg_pool2d(sprite.rgba[None], 1 << level)[0] if level else sprite.rgba
            atlas[self._num] = (small * 255).round().to(torch.uint8)
        self.windows[self._num], self.boxes[self._num] = sprite.window, sprite.box
        self.keypoints[self._num] = sprite.keypoints
        self._slot[look] = self._num
        self._num += 1

    def slots(self, look: NDArray[np.int64]) -> NDArray[np.int64]:
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
        canvas = self._backdrop(packed, size)  # (B, 3, S, S)
        ids = None
        if not only_rgb:
            ids = torch.zeros(len(packed), size, size, dtype=torch.int16, device=self.device)
        own = torch.zeros(len(figures.scene), device=self.device)
        for step in figures.steps(self.device):
            cut = self._cut(step)
            self._paste(canvas, cut, step)
            if ids is not None:
                solid = cut[:, 3] > 255 * SOLID
                own[step.rows] = solid.sum((1, 2)).float()
                self._mark(ids, solid, step)
        rgb = canvas.round_().clamp_(0, 255).to(torch.uint8)
        if ids is None:
            return Render(rgb=rgb)
        return self._truth(rgb, ids, own, packed, figures, size)

    def _cut(self, step: "_Step") -> Tensor:
        """Sample sprites in their windows: ``(F, 4, W, W)`` in [0, 255], premultiplied."""
        sprites = self._levels[step.level][step.slot].float()
        place, side = step.transform, step.side
        along = torch.arange(side, device=self.device, dtype=torch.float32)
        x = (place[:, 0:1] * along + place[:, 1:2])[:, None, :].expand(-1, side, -1)
        y = (place[:, 2:3] * along + place[:, 3:4])[:, :, None].expand(-1, -1, side)
        grid = torch.stack([x, y], -1)  # (F, W, W, 2)
        return grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")

    def _paste(self, canvas: Tensor, cut: Tensor, step: "_Step") -> None:
        keep = 1 - cut[:, 3:] / 255
        if self.device.type == "cpu":  # slices beat gathers by far on a CPU
            for f, (b, top, left) in enumerate(step.corners):
                window = canvas[b, :, top : top + step.side, left : left + step.side]
                window.mul_(keep[f]).add_(cut[f, :3])
            return
        channels, size = canvas.shape[1], canvas.shape[2]
        planes = torch.arange(channels, device=self.device)[:, None, None] * size * size
        index = step.pixels(size, channels)[:, None] + planes  # (F, 3, W, W)
        flat = canvas.view(-1)
        flat[index] = flat[index] * keep + cut[:, :3]

    def _mark(self, ids: Tensor, solid: Tensor, step: "_Step") -> None:
        """Write figure numbers where they cover a pixel; ``solid`` is ``(F, W, W)`` bool."""
        if self.device.type == "cpu":
            for f, (b, top, left) in enumerate(step.corners):
                window = ids[b, top : top + step.side, left : left + step.side]
                window.masked_fill_(solid[f], int(step.number[f]))
            return
        index, flat = step.pixels(ids.shape[1], 1), ids.view(-1)
        flat[index] = torch.where(solid, step.number[:, None, None], flat[index])

    def _truth(
        self,
        rgb: Tensor,
        ids: Tensor,
        own: Tensor,
        packed: PackedScenes,
        figures: "_Figures",
        size: int,
    ) -> Render:
        """Everything else that follows from ids and places."""
        num, most = packed.look.shape
        to = self.device
        horizon = torch.from_numpy(packed.horizon).to(to)[:, None]
        rows = (torch.arange(size, device=to) + 0.5) / size
        below = rows - horizon  # (B, S)
        camera = torch.from_numpy(packed.camera_height).to(to)[:, None]
        ground = (camera / below.clamp(min=1e-6)).clamp(max=FAR)
        ground = torch.where(below > 0, ground, torch.full_like(ground, FAR))
        each = torch.cat([torch.zeros(num, 1), torch.from_numpy(packed.depth)], 1).to(to)
        places = ids.long()
        depth = each.gather(1, places.flatten(1)).view_as(ids)  # (B, S, S)
        depth = torch.where(ids > 0, depth, ground[:, :, None])
        validity = (ids > 0) | (below > 0)[:, :, None]

        offset = torch.arange(num, device=to)[:, None, None] * (most + 1)
        seen = (places + offset).flatten().bincount(minlength=num * (most + 1))
        seen = seen.view(num, most + 1)[:, 1:].float()
        where = (torch.from_numpy(figures.scene).to(to), torch.from_numpy(figures.index).to(to))
        whole = torch.zeros(num, most, device=to)
        whole[where] = own
        boxes = torch.zeros(num, most, 4, device=to)
        boxes[where] = torch.from_numpy(figures.boxes).to(to)
        keypoints = torch.zeros(num, most, NUM_KEYPOINTS, 2, device=to)
        keypoints[where] = torch.from_numpy(figures.keypoints).to(to)

        pixel = keypoints.long().clamp(0, size - 1)
        found = places[torch.arange(num, device=to)[:, None, None], pixel[..., 1], pixel[..., 0]]
        is_seen = found == torch.arange(1, most + 1, device=to)[None, :, None]
        return Render(
            rgb=rgb,
            depth=depth,
            ids=ids,
            validity=validity,
            figure_mask=ids > 0,
            boxes=boxes,
            visibility=seen / whole.clamp(min=1),
            keypoints=keypoints,
            is_keypoint_seen=is_seen,
        )


@dataclass(frozen=True)
class _Step:
    """Figures of different scenes that are pasted in one go: one level, one side of window."""

    level: int
    side: int
    rows: slice
    slot: Tensor
    number: Tensor
    transform: Tensor
    corner: Tensor
    corners: list[list[int]]

    def pixels(self, size: int, channels: int) -> Tensor:
        """Index of each window pixel in a flat ``(B, channels, size, size)``; ``(F, W, W)``."""
        along = torch.arange(self.side, device=self.corner.device)
        scene, top, left = self.corner[:, :, None, None].unbind(1)
        row = (scene * channels * size + top + along[:, None]) * size
        return row + left + along


@dataclass(frozen=True)
class _Figures:
    """Where the figures of a batch lie in pixels, in the order in which they are drawn.

    ``transform`` takes a window's pixel to ``grid_sample`` coordinates of the sprite: slope and
    start of x, slope and start of y.
    """

    scene: NDArray[np.int64]  # (F,)
    index: NDArray[np.int64]  # (F,)
    key: NDArray[np.int64]  # (F,) paint step, side of the window and mip level in one number
    slot: NDArray[np.int64]  # (F,)
    level: NDArray[np.int64]  # (F,)
    side: NDArray[np.int64]  # (F,)
    corner: NDArray[np.int64]  # (F, 3): scene, top, left
    transform: NDArray[np.float32]  # (F, 4)
    boxes: NDArray[np.float32]  # (F, 4)
    keypoints: NDArray[np.float32]  # (F, K, 2)

    @staticmethod
    def of(packed: PackedScenes, renderer: Renderer, size: int) -> "_Figures":
        """Lay out all figures of a batch, sorted by paint step and kind of window."""
        is_there = packed.look >= 0
        scene, index = is_there.nonzero()
        # Painter's order: far to near, earlier figures first where depths are equal.
        far = np.where(is_there, -packed.depth, np.inf)
        rank = np.argsort(np.argsort(far, axis=1, kind="stable"), axis=1, kind="stable")
        slot = renderer.slots(packed.look[is_there])
        scale = packed.scale[is_there] * (size / UNIT)  # picture pixels a canvas pixel
        ratio = np.abs(scale)
        foot = np.stack([packed.x[is_there], packed.y[is_there]], axis=1) * size
        window = _in_picture(renderer.windows[slot], foot, scale, ratio)
        level = np.clip(np.round(-np.log2(ratio)), 0, _LEVELS - 1).astype(np.int64)
        quantum = _QUANTUM if renderer.device.type == "cpu" else max(_QUANTUM, size // 4)
        reach = np.maximum(window[:, 2] - window[:, 0], window[:, 3] - window[:, 1]) + 2
        side = np.minimum(np.ceil(reach / quantum).astype(np.int64) * quantum, size)
        corner = np.floor(window[:, :2] - 0.5).astype(np.int64)
        corner = np.clip(corner, 0, (size - side)[:, None])  # left, top
        slope = 2 / (CANVAS * np.stack([scale, ratio], axis=1))
        start = (corner + 0.5 - foot) * slope + [0.0, 2 * FOOT / CANVAS - 1]
        transform = np.stack([slope[:, 0], start[:, 0], slope[:, 1], start[:, 1]], axis=1)
        points = renderer.keypoints[slot] - [CANVAS / 2, FOOT]
        points = points * np.stack([scale, ratio], axis=1)[:, None] + foot[:, None]
        key = (rank[is_there] * 512 + side) * _LEVELS + level
        parts = (scene, index, key, slot, level, side, np.stack([scene, *corner.T[::-1]], axis=1))
        boxes = _in_picture(renderer.boxes[slot], foot, scale, ratio)
        floats = (transform, boxes, points)
        order = np.argsort(key, kind="stable")
        return _Figures(*(p[order] for p in parts), *(p[order].astype(np.float32) for p in floats))

    def steps(self, device: torch.device) -> list[_Step]:
        """The batched paint steps, far to near; one upload for all."""
        slot, number = torch.from_numpy(self.slot), torch.from_numpy(self.index + 1)
        corner, transform = torch.from_numpy(self.corner), torch.from_numpy(self.transform)
        slot, number = slot.to(device), number.to(device, torch.int16)
        corner, transform = corner.to(device), transform.to(device)
        starts = [0, *(np.flatnonzero(np.diff(self.key)) + 1).tolist(), len(self.key)]
        steps = []
        for start, stop in itertools.pairwise(starts):
            rows = slice(start, stop)
            level, side = int(self.level[start]), int(self.side[start])
            parts = (slot[rows], number[rows], transform[rows], corner[rows])
            steps.append(_Step(level, side, rows, *parts, self.corner[rows].tolist()))
        return steps if len(self.key) else []


def _in_picture(
    boxes: NDArray[np.float32],
    foot: NDArray[np.float32],
    scale: NDArray[np.float32],
    ratio: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Boxes on sprite canvases as boxes in the picture, mirrored where scale is negative."""
    x = (boxes[:, [0, 2]] - CANVAS / 2) * scale[:, None] + foot[:, :1]
    y = (boxes[:, [1, 3]] - FOOT) * ratio[:, None] + foot[:, 1:]
    return np.stack([x.min(1), y[:, 0], x.max(1), y[:, 1]], axis=1)
