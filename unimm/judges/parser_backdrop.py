"""Which of the world's backdrops a picture is drawn on.

Shapes: B pictures, S side of a picture.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

_SHRINK = 4
_NUM_EXACT = 4  # backdrops compared at full size


def pick_backdrop(pictures: Tensor, backdrops: Tensor) -> Tensor:
    """The backdrop that differs least, whatever stands before it.

    Args:
        pictures: ``(B, 3, S, S)`` in 0..1.
        backdrops: ``(96, 3, S, S)`` in 0..1.

    Returns:
        ``(B,)`` int64.
    """
    small = avg_pool2d(pictures, _SHRINK)
    rough = [_difference(small, one[None]) for one in avg_pool2d(backdrops, _SHRINK)]
    few = torch.stack(rough, 1).topk(_NUM_EXACT, dim=1, largest=False).indices
    exact = torch.stack([_difference(pictures, backdrops[k]) for k in few.T], 1)
    return few.gather(1, exact.argmin(1, keepdim=True))[:, 0]


def _difference(pictures: Tensor, ground: Tensor) -> Tensor:
    """Mean difference to a backdrop, bounded so that figures count little; ``(B,)``."""
    return (pictures - ground).abs().amax(1).clamp(max=0.1).mean((1, 2))
