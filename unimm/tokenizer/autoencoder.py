"""The convolutional autoencoder of the image tokenizer: pixels to a small latent grid and back.

Shapes: B batch, H W picture, h w latent grid, C latent channels, D channels of a level.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimm.tokenizer.fused_norm import norm_silu

_NORM_GROUPS = 16


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Sizes of encoder and decoder.

    Attributes:
        widths: channels of each level, fine to coarse; every level but the first halves the grid.
        encoder_blocks: residual blocks of each level, fine to coarse.
        decoder_blocks: the same for the decoder, also fine to coarse.
        patch_size: pixels a side that become one place of the finest level.
        num_heads: of the decoder's one attention block, at the coarsest level; 0 leaves it out.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    encoder_blocks: tuple[int, ...] = (2, 2, 1)
    decoder_blocks: tuple[int, ...] = (3, 3, 3)
    patch_size: int = 2
    num_heads: int = 4

    def __post_init__(self) -> None:
        for name in ("encoder_blocks", "decoder_blocks"):
            if len(getattr(self, name)) != len(self.widths):
                raise ValueError(
                    f"{name} {getattr(self, name)} must have one number for each of "
                    f"the {len(self.widths)} widths {self.widths}"
                )
        if not self.widths or any(width % _NORM_GROUPS for width in self.widths):
            raise ValueError(f"widths {self.widths} must be multiples of {_NORM_GROUPS}")
        if self.num_heads and self.widths[-1] % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} must divide {self.widths[-1]} channels")

    @property
    def downsample(self) -> int:
        """Pixels a side that share one place of the latent grid."""
        return self.patch_size * 2 ** (len(self.widths) - 1)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around which the input is carried: ``(B, D, h, w)`` to the same."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_NORM_GROUPS, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(_NORM_GROUPS, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        # A block starts as the identity, so that depth costs nothing at first.
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Refine ``(B, D, h, w)``."""
        hidden = self.conv1(norm_silu(x, self.norm1))
        return x + self.conv2(norm_silu(hidden, self.norm2))


class SpatialAttention(nn.Module):
    """Every place of a grid looks at every other: ``(B, D, h, w)`` to the same."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.GroupNorm(_NORM_GROUPS, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.output = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Mix the places of ``(B, D, h, w)``."""
        batch, width, height, columns = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.num_heads, -1, height * columns)
        query, key, value = qkv.transpose(-1, -2).unbind(dim=1)  # (B, heads, h w, D / heads)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.output(mixed.transpose(-1, -2).reshape(batch, width, height, columns))


class Upsample(nn.Module):
    """Double a grid and change its channels; nearest first, so no checkerboard appears."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, D, h, w)`` to ``(B, D', 2 h, 2 w)``."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Encoder(nn.Module):
    """Pixels ``(B, 3, H, W)`` in [-1, 1] to ``(B, C, h, w)``, unbounded."""

    def __init__(self, config: AutoencoderConfig, latent_dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.patch_size = config.patch_size
        layers: list[nn.Module] = [
            nn.Conv2d(3 * config.patch_size**2, widths[0], 3, padding=1),
        ]
        for level, width in enumerate(widths):
            if level > 0:
                layers.append(nn.Conv2d(widths[level - 1], width, 3, stride=2, padding=1))
            layers += [ResidualBlock(width) for _ in range(config.encoder_blocks[level])]
        self.layers = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(_NORM_GROUPS, widths[-1])
        self.output = nn.Conv2d(widths[-1], latent_dim, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode ``(B, 3, H, W)`` to ``(B, C, h, w)``."""
        x = F.pixel_unshuffle(pixels, self.patch_size)  # (B, 3 p p, H / p, W / p)
        x = x.contiguous(memory_format=torch.channels_last)
        return self.output(norm_silu(self.layers(x), self.norm))


class Decoder(nn.Module):
    """Latents or codebook vectors ``(B, C, h, w)`` to pixels ``(B, 3, H, W)``, about [-1, 1]."""

    def __init__(self, config: AutoencoderConfig, latent_dim: int) -> None:
        super().__init__()
        widths = config.widths
        self.patch_size = config.patch_size
        layers: list[nn.Module] = [nn.Conv2d(latent_dim, widths[-1], 3, padding=1)]
        for level in reversed(range(len(widths))):
            is_coarsest = level == len(widths) - 1
            if not is_coarsest:
                layers.append(Upsample(widths[level + 1], widths[level]))
            for block in range(config.decoder_blocks[level]):
                layers.append(ResidualBlock(widths[level]))
                if is_coarsest and block == 0 and config.num_heads:
                    layers.append(SpatialAttention(widths[level], config.num_heads))
        self.layers = nn.Sequential(*layers)
        self.norm = nn.GroupNorm(_NORM_GROUPS, widths[0])
        self.output = nn.Conv2d(widths[0], 3 * config.patch_size**2, 3, padding=1)

    def forward(self, vectors: Tensor) -> Tensor:
        """Decode ``(B, C, h, w)`` to ``(B, 3, H, W)`` float32."""
        x = self.layers(vectors.contiguous(memory_format=torch.channels_last))
        x = self.output(norm_silu(x, self.norm))  # (B, 3 p p, H / p, W / p)
        return F.pixel_shuffle(x.float(), self.patch_size)
