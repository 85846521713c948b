"""What an image tokenizer is trained on: reconstruction, perceptual and adversarial losses.

Shapes: B batch, H W picture.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the losses.

    Attributes:
        l1: of absolute differences.
        l2: of squared differences.
        gradient: of absolute differences of neighbours' differences (edges).
        coarse: of absolute differences at a quarter of the size.
        figure: how much more a pixel inside the figures counts than one outside; 1 ignores masks.
        commitment: of the quantizer's own loss.
        perceptual: of the distance in a vision model's features; needs ``perceptual_model``.
        perceptual_model: folder of a ``transformers`` vision model; nothing is downloaded.
        adversarial: of the patch discriminator; 0 trains none.
        adversarial_start: the share of training after which it begins.
    """

    l1: float = 1.0
    l2: float = 2.0
    gradient: float = 0.5
    coarse: float = 0.25
    figure: float = 5.0
    commitment: float = 0.25
    perceptual: float = 0.0
    perceptual_model: str | None = None
    adversarial: float = 0.0
    adversarial_start: float = 0.75

    def __post_init__(self) -> None:
        if self.figure < 1:
            raise ValueError(f"figure weight {self.figure} must be at least 1")
        if self.perceptual > 0 and self.perceptual_model is None:
            raise ValueError(
                f"perceptual weight {self.perceptual} needs perceptual_model, the folder of a "
                "transformers vision model; or set the weight to 0"
            )


def pixel_weights(mask: Tensor, figure: float) -> Tensor:
    """Turn a mask of the figures ``(B, H, W)`` into weights ``(B, 1, H, W)``, on average 1.

    The mean is taken over the batch, so that a picture full of figures counts for more.
    """
    weight = 1.0 + (figure - 1.0) * mask.float().unsqueeze(1)
    return weight / weight.mean()


def reconstruction_loss(
    pixels: Tensor, target: Tensor, weight: Tensor | None, config: LossConfig
) -> Tensor:
    """Compare pixels by value, by square, by edges and at a quarter of the size.

    Args:
        pixels: ``(B, 3, H, W)`` reconstruction.
        target: ``(B, 3, H, W)`` in [-1, 1].
        weight: ``(B, 1, H, W)`` of each pixel, on average 1; None weighs all alike.
        config: weights of the terms.

    Returns:
        Scalar.
    """
    difference = pixels - target
    if weight is None:
        weight = torch.ones_like(difference[:, :1])
    rows = (difference[:, :, 1:] - difference[:, :, :-1]).abs()
    columns = (difference[:, :, :, 1:] - difference[:, :, :, :-1]).abs()
    # Averaging the difference is the difference of the averages: one pooling serves both pictures.
    coarse = F.avg_pool2d(difference, 4).abs()
    coarse_weight = F.avg_pool2d(weight, 4)
    return (
        config.l1 * (difference.abs() * weight).mean()
        + config.l2 * (difference.square() * weight).mean()
        + config.gradient * (rows * weight[:, :, 1:]).mean()
        + config.gradient * (columns * weight[:, :, :, 1:]).mean()
        + config.coarse * (coarse * coarse_weight).mean()
    )


class PatchDiscriminator(nn.Module):
    """Says of each patch whether it is real: ``(B, 3, H, W)`` to ``(B, 1, H / 8, W / 8)``.

    The PatchGAN of Isola et al., 2017, with group instead of batch normalisation: nothing leaks
    between the real and the drawn pictures of a batch.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.SiLU()]
        for level in range(2):
            here = width * 2**level
            layers += [
                nn.Conv2d(here, 2 * here, 4, stride=2, padding=1),
                nn.GroupNorm(8, 2 * here),
                nn.SiLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))

    def forward(self, pixels: Tensor) -> Tensor:
        """Give a logit for each patch, above 0 for real."""
        return self.layers(pixels).float()


def discriminator_loss(real: Tensor, drawn: Tensor) -> Tensor:
    """Hinge loss of the discriminator's logits for real and drawn pictures, scalar."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + drawn).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor) -> Tensor:
    """Scale the adversarial loss to pull on the picture as hard as the reconstruction loss.

    VQGAN (Esser et al., 2021, Eq. 7) compares gradients at the decoder's last layer; we compare
    them at the pixels, one linear layer later, which needs no second pass through the decoder.

    Args:
        reconstruction: gradient of the reconstruction loss at the pixels ``(B, 3, H, W)``.
        adversarial: gradient of the adversarial loss there.

    Returns:
        Scalar in [0, 10^4].
    """
    return (reconstruction.norm() / (adversarial.norm() + 1e-6)).clamp(0.0, 1e4)


class PerceptualLoss(nn.Module):
    """Distance in the features of a frozen vision model, after LPIPS (Zhang et al., 2018).

    Features of every stage are normalised to unit length at each place; their squared differences
    are averaged over places and stages, without LPIPS's learned channel weights.

    Args:
        folder: of a ``transformers`` vision model that gives hidden states (a ResNet, a ViT ...).

    Raises:
        ValueError: if the folder does not exist; nothing is downloaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        if not Path(folder).is_dir():
            raise ValueError(f"perceptual model folder {str(folder)!r} does not exist")
        from transformers import AutoModel

        self.model = AutoModel.from_pretrained(str(folder), local_files_only=True)
        self.model.eval().requires_grad_(False)
        # Means and deviations of ImageNet, which vision models expect unless told otherwise.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        size = getattr(self.model.config, "image_size", None)
        self.image_size: int | None = size if isinstance(size, int) else None

    def features(self, pixels: Tensor) -> list[Tensor]:
        """Give each stage's features of ``(B, 3, H, W)`` in [-1, 1], unit length per place."""
        x = ((pixels + 1) / 2 - self.mean) / self.std
        if self.image_size and x.shape[-1] != self.image_size:
            side = (self.image_size, self.image_size)
            x = F.interpolate(x, size=side, mode="bilinear", antialias=True)
        hidden = self.model(pixel_values=x, output_hidden_states=True).hidden_states
        # Convolutional stages are (B, D, h, w), a transformer's layers (B, n, D).
        return [F.normalize(h.float(), dim=1 if h.ndim == 4 else 2) for h in hidden]

    def forward(self, pixels: Tensor, target: Tensor) -> Tensor:
        """Compare pictures ``(B, 3, H, W)`` in [-1, 1]: ``(B,)``."""
        with torch.no_grad():
            wanted = self.features(target)
        distances = [
            (a - b).square().sum(dim=1 if a.ndim == 4 else 2).flatten(1).mean(dim=1)
            for a, b in zip(self.features(pixels), wanted, strict=True)
        ]
        return torch.stack(distances).mean(dim=0)
