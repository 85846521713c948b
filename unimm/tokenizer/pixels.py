"""What counts as a picture: floats in [-1, 1], channels first; as bytes, channels last."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_PIXEL_TOLERANCE = 1e-3


def check_pixels(pixels: Tensor) -> None:
    """Refuse what is no picture ``(B, 3, H, W)`` or ``(3, H, W)`` in [-1, 1].

    Raises:
        ValueError: on another shape or type, values outside or NaN; waits for the device.
    """
    if pixels.ndim not in (3, 4) or pixels.shape[-3] != 3:
        raise ValueError(
            f"pixels must be (B, 3, H, W) or (3, H, W), got {tuple(pixels.shape)}; "
            "put the channels first and drop alpha"
        )
    if not pixels.is_floating_point():
        raise ValueError(f"pixels are {pixels.dtype}; give floats in [-1, 1] (uint8 / 127.5 - 1)")
    low, high = pixels.aminmax()
    if not (low >= -1 - _PIXEL_TOLERANCE and high <= 1 + _PIXEL_TOLERANCE):  # also false for NaN
        raise ValueError(
            f"pixels go from {low.item():g} to {high.item():g}, but must lie in [-1, 1] and "
            "be finite; uint8 / 127.5 - 1 gives that range"
        )


def to_levels(pixels: Tensor) -> Tensor:
    """Bytes ``(B, H, W, 3)`` of pictures ``(B, 3, H, W)`` in [-1, 1], as files want them."""
    levels = ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous()


def begin_copy(levels: Tensor) -> Callable[[], NDArray[np.uint8]]:
    """Begin to copy a tensor to the host; what is returned waits for it and gives the array.

    The GPU may go on with its next work, and the host with pictures that are there.
    """
    if not levels.is_cuda:
        return lambda: levels.cpu().numpy()
    host = torch.empty(levels.shape, dtype=levels.dtype, pin_memory=True)
    host.copy_(levels, non_blocking=True)
    copied = torch.cuda.current_stream(levels.device).record_event()

    def wait() -> NDArray[np.uint8]:
        copied.synchronize()
        return host.numpy()

    return wait
