"""Scenes to pictures, and pictures to what the detector sees, many at once.

Shapes: B pictures, S side of them in pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene
from unimm.judges.detector import Detector
from unimm.judges.sightings import Sighting
from unimm.tokenizer.pixels import to_levels

_PIXELS_AT_ONCE = 256 * 128 * 128


def render_pictures(
    scenes: Sequence[Scene],
    renderer: Renderer,
    *,
    size: int,
    view: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
) -> list[Image.Image]:
    """Draw what scenes show.

    Args:
        scenes: B scenes.
        renderer: draws them.
        size: side S in pixels.
        view: what happens to the pixels ``(B, 3, S, S)`` in [-1, 1] then, such as an image
            tokenizer's encoding and decoding.
        batch_size: scenes at once.
    """
    pictures: list[Image.Image] = []
    for start in range(0, len(scenes), batch_size):
        chunk = scenes[start : start + batch_size]
        pixels = renderer.render(chunk, size=size, only_rgb=True).rgb.float() / 127.5 - 1
        pixels = pixels if view is None else view(pixels)
        arrays = to_levels(pixels).cpu().numpy()  # (B, S, S, 3)
        pictures += [Image.fromarray(array) for array in arrays]
    return pictures


def describe_pictures(detector: Detector, pictures: Sequence[Image.Image]) -> list[Sighting]:
    """Let the detector describe pictures of one size."""
    device = next(detector.parameters()).device
    return [
        sighting
        for pixels in pixel_batches(pictures, device)
        for sighting in detector.describe(pixels)
    ]


def pixel_batches(pictures: Sequence[Image.Image], device: torch.device | str) -> Iterator[Tensor]:
    """Pictures of one size as ``(B, 3, S, S)`` float in [-1, 1], as many at once as are cheap."""
    area = pictures[0].width * pictures[0].height if pictures else 1
    batch_size = max(1, _PIXELS_AT_ONCE // area)
    for start in range(0, len(pictures), batch_size):
        arrays = [np.asarray(picture) for picture in pictures[start : start + batch_size]]
        pixels = torch.from_numpy(np.stack(arrays)).to(device).permute(0, 3, 1, 2)  # (B, 3, S, S)
        yield pixels.float() / 127.5 - 1
