"""The renderer: scenes to pixels, depth, ids and boxes, in batches on the CPU or on the GPU.

``pack_scenes`` turns scenes into small arrays (a data worker can do it), ``Renderer`` draws them.
Figures are cut from an atlas of composed sprites, filled on demand, and pasted far to near.
Figures of one paint step belong to different scenes, so each step is a few batched operations
on windows just large enough; windows of similar size share a call.

Shapes: B scenes, N most figures of one scene, F figures of the batch, S side of a picture,
W side of a window, K keypoints of a figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from unimm.data.world.art import NUM_KEYPOINTS, SOLID
from unimm.data.world.atlas import Atlas
from unimm.data.world.backdrops import NUM_VARIANTS, backdrop
from unimm.data.world.packing import PackedScenes, pack_scenes
from unimm.data.world.scene import BACKGROUNDS, Scene
from unimm.data.world.windows import Figures, Step, cut_sprites

__all__ = ["FAR", "PackedScenes", "Render", "Renderer", "pack_scenes"]

FAR = 20.0  # depth of the sky and the largest depth of the ground, in scene units


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
def backdrops(size: int) -> Tensor:
    """All backdrops at one size: ``(6 * NUM_VARIANTS, 3, size, size)`` uint8."""
    masters = [backdrop(name, v) for name in BACKGROUNDS for v in range(NUM_VARIANTS)]
    pixels = torch.from_numpy(np.stack(masters)).permute(0, 3, 1, 2).float().contiguous()
    small = interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8)


class Renderer:
    """Draws scenes; holds the sprites and backdrops that it has met on its device.

    Same scene, same pixels: nothing is random here.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._atlas = Atlas(self.device)
        self._backdrops: dict[int, Tensor] = {}

    def _backdrop(self, packed: PackedScenes, size: int) -> Tensor:
        if size not in self._backdrops:
            self._backdrops[size] = backdrops(size).to(self.device)
        index = torch.from_numpy(packed.backdrop).to(self.device)
        return self._backdrops[size][index].float()  # (B, 3, S, S)

    def prepare(self, scenes: Sequence[Scene], *, num_workers: int) -> None:
        """Compose the sprites of many scenes ahead, by several processes."""
        look = pack_scenes(scenes).look
        self._atlas.fill(look[look >= 0], num_workers=num_workers)

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
        figures = Figures.of(packed, self._atlas, size)
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

    def _cut(self, step: Step) -> Tensor:
        """Sample sprites in their windows: ``(F, 4, W, W)`` in [0, 255], premultiplied."""
        sprites = self._atlas.levels[step.level][step.slot].float()
        return cut_sprites(sprites, step.transform, step.side)

    def _paste(self, canvas: Tensor, cut: Tensor, step: Step) -> None:
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

    def _mark(self, ids: Tensor, solid: Tensor, step: Step) -> None:
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
        figures: Figures,
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
