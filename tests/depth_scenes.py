"""Two pictures whose depth is easily told from how light they are."""

import torch

from unimm.data.labelled.sets import LabelledPictures


def two_scenes() -> LabelledPictures:
    """A dark picture, deeper to the right, and a light one, deeper downwards."""
    ramp = torch.linspace(1, 8, 16).expand(16, 16)
    depth = torch.stack([ramp, ramp.T]).contiguous()
    pixels = torch.tensor([20, 230], dtype=torch.uint8)[:, None, None, None]
    return LabelledPictures(
        pixels=pixels.expand(2, 3, 16, 16).contiguous(),
        depth=depth,
        has_depth=torch.ones_like(depth, dtype=torch.bool),
    )
