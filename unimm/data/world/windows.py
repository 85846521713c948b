"""Windows: where the figures of a batch are pasted, and in which batched steps.

Shapes: F figures of the batch, S side of a picture, W side of a window, K keypoints.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample

from unimm.data.world.art import CANVAS, FOOT, UNIT
from unimm.data.world.atlas import NUM_LEVELS, Atlas
from unimm.data.world.packing import PackedScenes

_SPILL = 1.5  # pixels that smoothing can reach beyond a sprite
_QUANTUM = 8  # windows have sides of multiples of this


@dataclass(frozen=True)
class Step:
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
class Figures:
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
    def of(packed: PackedScenes, atlas: Atlas, size: int) -> "Figures":
        """Lay out all figures of a batch, sorted by paint step and kind of window."""
        is_there = packed.look >= 0
        scene, index = is_there.nonzero()
        # Painter's order: far to near, earlier figures first where depths are equal.
        far = np.where(is_there, -packed.depth, np.inf)
        rank = np.argsort(np.argsort(far, axis=1, kind="stable"), axis=1, kind="stable")
        slot = atlas.slots(packed.look[is_there])
        scale = packed.scale[is_there] * (size / UNIT)  # picture pixels a canvas pixel
        ratio = np.abs(scale)
        foot = np.stack([packed.x[is_there], packed.y[is_there]], axis=1) * size
        window = _in_picture(atlas.windows[slot], foot, scale, ratio)
        level = np.clip(np.round(-np.log2(ratio)), 0, NUM_LEVELS - 1).astype(np.int64)
        quantum = _QUANTUM if atlas.device.type == "cpu" else max(_QUANTUM, size // 4)
        reach = np.maximum(window[:, 2] - window[:, 0], window[:, 3] - window[:, 1])
        reach += 2 * _SPILL + 1
        side = np.minimum(np.ceil(reach / quantum).astype(np.int64) * quantum, size)
        corner = np.floor(window[:, :2] - _SPILL).astype(np.int64)
        corner = np.clip(corner, 0, (size - side)[:, None])  # left, top
        slope = 2 / (CANVAS * np.stack([scale, ratio], axis=1))
        start = (corner + 0.5 - foot) * slope + [0.0, 2 * FOOT / CANVAS - 1]
        transform = np.stack([slope[:, 0], start[:, 0], slope[:, 1], start[:, 1]], axis=1)
        points = atlas.keypoints[slot] - [CANVAS / 2, FOOT]
        points = points * np.stack([scale, ratio], axis=1)[:, None] + foot[:, None]
        key = (rank[is_there] * 512 + side) * NUM_LEVELS + level
        order = np.argsort(key, kind="stable")
        return Figures(
            scene=scene[order],
            index=index[order],
            key=key[order],
            slot=slot[order],
            level=level[order],
            side=side[order],
            corner=np.stack([scene, *corner.T[::-1]], axis=1)[order],
            transform=transform[order].astype(np.float32),
            boxes=_in_picture(atlas.boxes[slot], foot, scale, ratio)[order].astype(np.float32),
            keypoints=points[order].astype(np.float32),
        )

    def steps(self, device: torch.device) -> list[Step]:
        """The batched paint steps, far to near; one upload for all."""
        if not len(self.key):
            return []
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
            steps.append(Step(level, side, rows, *parts, self.corner[rows].tolist()))
        return steps


def cut_sprites(sprites: Tensor, transform: Tensor, side: int) -> Tensor:
    """Sample sprites in their windows.

    Args:
        sprites: ``(F, C, s, s)`` float.
        transform: ``(F, 4)``, see ``Figures``.
        side: W.

    Returns:
        ``(F, C, W, W)``; 0 outside a sprite's canvas.
    """
    along = torch.arange(side, device=sprites.device, dtype=torch.float32)
    x = (transform[:, 0:1] * along + transform[:, 1:2])[:, None, :].expand(-1, side, -1)
    y = (transform[:, 2:3] * along + transform[:, 3:4])[:, :, None].expand(-1, -1, side)
    grid = torch.stack([x, y], -1)  # (F, W, W, 2)
    return grid_sample(sprites, grid, align_corners=False, padding_mode="zeros")


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
