"""What counts as a picture: floats in [-1, 1], channels first."""

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
