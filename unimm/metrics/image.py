"""How far a picture is from the one it should be: pure functions on pixels in [-1, 1].

Shapes: B batch, C channels, H height, W width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

PIXEL_RANGE = 2.0  # from -1 to 1
_MIN_ERROR = 1e-10  # of the mean square error: equal pictures give 106 dB, not infinity


def squared_error(pixels: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared error of each picture, whole or inside a mask.

    Args:
        pixels: ``(B, C, H, W)`` in [-1, 1].
        target: ``(B, C, H, W)`` in [-1, 1].
        mask: ``(B, H, W)``, true (or its weight) where pixels count. A picture with an empty mask
            gives NaN, so that it can be left out of a mean but never counts as perfect.

    Returns:
        ``(B,)`` float32.
    """
    assert pixels.shape == target.shape, (pixels.shape, target.shape)
    error = (pixels.float() - target.float()).square().mean(dim=1)  # (B, H, W)
    if mask is None:
        return error.mean(dim=(1, 2))
    weight = mask.to(error.dtype)
    return (error * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def psnr(pixels: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal to noise ratio of each picture in dB, whole or inside a mask.

    Args:
        pixels: ``(B, C, H, W)`` in [-1, 1].
        target: ``(B, C, H, W)`` in [-1, 1].
        mask: ``(B, H, W)`` of what counts; an empty one gives NaN.

    Returns:
        ``(B,)`` float32.
    """
    return psnr_of_error(squared_error(pixels, target, mask))


def psnr_of_error(error: Tensor) -> Tensor:
    """Turn mean squared errors of pixels in [-1, 1] into dB, shape kept."""
    return 10.0 * torch.log10(PIXEL_RANGE**2 / error.clamp(min=_MIN_ERROR))


def ssim(pixels: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Structural similarity of each picture (Wang et al., 2004), 1 for equal pictures.

    Args:
        pixels: ``(B, C, H, W)`` in [-1, 1].
        target: ``(B, C, H, W)`` in [-1, 1].
        window: side of the Gaussian window in pixels, as in the paper.
        sigma: its standard deviation in pixels.

    Returns:
        ``(B,)`` float32: the mean over channels and over the places where the window fits.

    Raises:
        ValueError: if a picture is smaller than the window.
    """
    assert pixels.shape == target.shape, (pixels.shape, target.shape)
    if min(pixels.shape[-2:]) < window:
        raise ValueError(
            f"pictures of {tuple(pixels.shape[-2:])} are smaller than the window of {window}; "
            "use larger pictures or a smaller window"
        )
    offsets = torch.arange(window, device=pixels.device, dtype=torch.float32) - (window - 1) / 2
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    line = line / line.sum()

    def blur(x: Tensor) -> Tensor:  # (B C, 1, H, W) -> (B C, 1, H - window + 1, W - window + 1)
        return F.conv2d(F.conv2d(x, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1))

    batch = pixels.shape[0]
    a = pixels.float().flatten(0, 1).unsqueeze(1)
    b = target.float().flatten(0, 1).unsqueeze(1)
    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a.square()
    variance_b = blur(b * b) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    # Eq. 13 of the paper, with its constants K1 = .01 and K2 = .03.
    c1, c2 = (0.01 * PIXEL_RANGE) ** 2, (0.03 * PIXEL_RANGE) ** 2
    similarity = ((2 * mean_a * mean_b + c1) * (2 * covariance + c2)) / (
        (mean_a.square() + mean_b.square() + c1) * (variance_a + variance_b + c2)
    )
    return similarity.reshape(batch, -1).mean(dim=1)


def score_pictures(pixels: Tensor, target: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Score reconstructions, whole, inside the figures and outside of them.

    Args:
        pixels: ``(B, C, H, W)`` reconstructions in [-1, 1].
        target: ``(B, C, H, W)`` in [-1, 1].
        mask: ``(B, H, W)`` bool, true inside the figures; None leaves the parts out.

    Returns:
        ``psnr`` and ``ssim`` and, with a mask, ``psnr_figures``, ``psnr_background`` (dB) and
        ``error_figures`` (squared error), each ``(B,)``, NaN where a picture has no such pixel.
    """
    scores = {"psnr": psnr(pixels, target), "ssim": ssim(pixels, target)}
    if mask is not None:
        scores["error_figures"] = squared_error(pixels, target, mask)
        scores["psnr_figures"] = psnr_of_error(scores["error_figures"])
        scores["psnr_background"] = psnr(pixels, target, ~mask.bool())
    return scores


def summarize_scores(scores: list[dict[str, Tensor]]) -> dict[str, float]:
    """Average ``score_pictures`` over batches; pictures without figures are left out of theirs.

    Returns:
        The mean over pictures of each score. ``psnr_figures_pooled`` comes from the mean squared
        error of all pictures instead, so that bad pictures count for more.
    """
    joined = {name: torch.cat([batch[name] for batch in scores]) for name in scores[0]}
    errors = joined.pop("error_figures", None)
    summary = {name: float(values.nanmean()) for name, values in joined.items()}
    if errors is not None:
        summary["psnr_figures_pooled"] = float(psnr_of_error(errors.nanmean()))
    return summary
