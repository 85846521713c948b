"""The image tokenizer: pixels to ``ImageTokens`` and back.

Shapes: B batch, H W picture, h w code grid (picture sides over ``downsample``), C latent channels,
K codebook size.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unimm.document import ImageTokens
from unimm.tokenizer.autoencoder import AutoencoderConfig, Decoder, Encoder
from unimm.tokenizer.quantizer import Quantizer, QuantizerConfig

SINGLE = "single"  # the schedule of one grid of codes
_PIXEL_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig:
    """Architecture of an image tokenizer.

    Attributes:
        autoencoder: sizes of encoder and decoder.
        quantizer: scheme, codebook size and latent channels.
        image_size: side in pixels of the pictures it was trained on; any size that ``downsample``
            divides works, this one works best.
        schedules: which code layouts it gives over its one codebook; ``single`` is always there,
            since context copies are made of it.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    image_size: int = 128
    schedules: tuple[str, ...] = (SINGLE,)

    def __post_init__(self) -> None:
        if self.schedules != (SINGLE,):
            raise ValueError(f"schedules {self.schedules} are not known; known: {(SINGLE,)}")
        if self.image_size % self.autoencoder.downsample:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {self.autoencoder.downsample}"
            )


class Reconstruction(NamedTuple):
    """What the training forward gives.

    Attributes:
        pixels: ``(B, 3, H, W)`` float32.
        codes: ``(B, h, w)`` int64.
        latents: ``(B, C, h, w)`` float32.
        quantizer_loss: scalar.
    """

    pixels: Tensor
    codes: Tensor
    latents: Tensor
    quantizer_loss: Tensor


class ImageTokenizer(nn.Module):
    """One autoencoder and one codebook; decodes codes and continuous latents alike.

    Latents are what the code lookup sees (for ``vq`` unit vectors); their mean and standard
    deviation over training pictures, one number a channel, are stored for objectives that
    standardise them.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.quantizer.dim
        self.encoder = Encoder(config.autoencoder, dim)
        self.decoder = Decoder(config.autoencoder, dim)
        self.quantizer = Quantizer(config.quantizer)
        self.register_buffer("latent_mean", torch.zeros(dim))
        self.register_buffer("latent_std", torch.ones(dim))

    @property
    def downsample(self) -> int:
        """Pixels a side behind one code."""
        return self.config.autoencoder.downsample

    @property
    def codebook_size(self) -> int:
        """Number of codes K."""
        return self.config.quantizer.codebook_size

    @property
    def latent_dim(self) -> int:
        """Channels C of the latents."""
        return self.config.quantizer.dim

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.decoder.output.weight.dtype

    @property
    def schedules(self) -> tuple[str, ...]:
        """Names of the code layouts it gives."""
        return self.config.schedules

    @property
    def codebook_vectors(self) -> Tensor:
        """Vectors of all codes, ``(K, C)`` float32, in the space of the latents."""
        return self.quantizer.codebook_vectors

    def grid_size(self, height: int, width: int) -> tuple[int, int]:
        """Give the code grid of a picture.

        Raises:
            ValueError: if a side is not a multiple of ``downsample``.
        """
        factor = self.downsample
        if height < factor or width < factor or height % factor or width % factor:
            raise ValueError(
                f"a picture of {height}x{width} pixels does not fit: both sides must be multiples "
                f"of {factor}; resize it, for example to "
                f"{max(factor, round(height / factor) * factor)}"
                f"x{max(factor, round(width / factor) * factor)}"
            )
        return height // factor, width // factor

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> ImageTokens:
        """Encode pictures.

        Args:
            pixels: ``(B, 3, H, W)`` float in [-1, 1], or ``(3, H, W)`` for one picture.

        Returns:
            ``codes (B, h, w)`` and ``latents (B, C, h, w)``; without B for one picture.

        Raises:
            ValueError: on another shape or type, values outside [-1, 1] or NaN.
        """
        self._check_pixels(pixels)
        if pixels.ndim == 3:
            return self.encode(pixels.unsqueeze(0))[0]
        latents = self.quantizer.to_latents(self.encoder(pixels.to(self.dtype)))
        return ImageTokens(codes=self.quantizer.nearest(latents), latents=latents)

    @torch.no_grad()
    def decode(self, tokens: ImageTokens, *, prefer_latents: bool = False) -> Tensor:
        """Draw pictures from their tokens.

        Args:
            tokens: ``codes (B, h, w)`` or ``latents (B, C, h, w)``, with or without B.
            prefer_latents: which to draw if both are there; codes by default, since they are what
                a trunk writes.

        Returns:
            ``(B, 3, H, W)`` float32 in [-1, 1]; without B for one picture.

        Raises:
            ValueError: if there is neither, or a code is out of range.
        """
        if tokens.latents is not None and (prefer_latents or tokens.codes is None):
            return self.decode_vectors(tokens.latents)
        if tokens.codes is None:
            raise ValueError("these tokens have neither codes nor latents; nothing can be decoded")
        return self.decode_codes(tokens.codes)

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor) -> Tensor:
        """What is left of pictures after their codes: ``decode(encode(pixels))``."""
        return self.decode(self.encode(pixels))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Draw ``(B, 3, H, W)`` in [-1, 1] from codes ``(B, h, w)``, with or without B.

        Raises:
            ValueError: if a code is out of range.
        """
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < self.codebook_size:
            raise ValueError(
                f"codes from {int(codes.min())} to {int(codes.max())} do not fit a codebook of "
                f"{self.codebook_size}: were they made by another image tokenizer?"
            )
        return self.decode_vectors(self.quantizer.embed(codes))

    @torch.no_grad()
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Draw ``(B, 3, H, W)`` in [-1, 1] from latents ``(B, C, h, w)``, with or without B."""
        if vectors.ndim == 3:
            return self.decode_vectors(vectors.unsqueeze(0))[0]
        return self.decoder(vectors.to(self.dtype)).clamp(-1.0, 1.0)

    def quantize(self, latents: Tensor) -> Tensor:
        """Give the nearest codes ``(..., h, w)`` of latents ``(..., C, h, w)``."""
        return self.quantizer.nearest(latents)

    def forward(self, pixels: Tensor, *, num_bypassed: int = 0) -> Reconstruction:
        """Reconstruct a training batch.

        Args:
            pixels: ``(B, 3, H, W)`` float in [-1, 1]; not checked, since it would stall the device.
            num_bypassed: how many pictures of the batch's end are decoded from their latents, so
                that the decoder learns to draw both.
        """
        encoded = self.encoder(pixels)
        quantized = self.quantizer(encoded)
        vectors = quantized.vectors
        if num_bypassed:
            vectors = torch.cat([vectors[:-num_bypassed], quantized.latents[-num_bypassed:]])
        return Reconstruction(
            self.decoder(vectors), quantized.codes, quantized.latents, quantized.loss
        )

    def to_state(self) -> dict[str, Tensor]:
        """What has to be kept to use the tokenizer: weights, codebook, statistics of the latents.

        Moving averages that only training needs are left out. ``quantizer.codebook`` and the
        statistics are best kept in float32; a rounded codebook gives other codes.
        """
        state = {
            name: tensor.detach()
            for name, tensor in self.state_dict().items()
            if not name.startswith("quantizer.")
        }
        return state | {"quantizer.codebook": self.codebook_vectors.detach()}

    @staticmethod
    def from_state(config: ImageTokenizerConfig, state: dict[str, Tensor]) -> "ImageTokenizer":
        """Make a tokenizer for use from what ``to_state`` gave, in evaluation mode.

        Raises:
            ValueError: if tensors are missing, unknown or of another shape.
        """
        tokenizer = ImageTokenizer(config)
        wanted = tokenizer.to_state()
        if wanted.keys() != state.keys():
            missing, unknown = (
                sorted(wanted.keys() - state.keys()),
                sorted(state.keys() - wanted.keys()),
            )
            raise ValueError(
                f"these are not an image tokenizer's weights: missing {missing[:3]}, "
                f"unknown {unknown[:3]}; do config and weights come from one folder?"
            )
        for name, tensor in state.items():
            if tensor.shape != wanted[name].shape:
                raise ValueError(
                    f"{name} is {tuple(tensor.shape)}, but the configuration says "
                    f"{tuple(wanted[name].shape)}; do config and weights come from one folder?"
                )
        weights = {k: v for k, v in state.items() if k != "quantizer.codebook"}
        tokenizer.load_state_dict(weights, strict=False)
        tokenizer.quantizer.freeze(state["quantizer.codebook"])
        return tokenizer.eval().requires_grad_(False)

    def _check_pixels(self, pixels: Tensor) -> None:
        if pixels.ndim not in (3, 4) or pixels.shape[-3] != 3:
            raise ValueError(
                f"pixels must be (B, 3, H, W) or (3, H, W), got {tuple(pixels.shape)}; "
                "put the channels first and drop alpha"
            )
        if not pixels.is_floating_point():
            raise ValueError(
                f"pixels are {pixels.dtype}; give floats in [-1, 1] (uint8 / 127.5 - 1)"
            )
        self.grid_size(pixels.shape[-2], pixels.shape[-1])
        low, high = pixels.aminmax()
        if not (
            low >= -1 - _PIXEL_TOLERANCE and high <= 1 + _PIXEL_TOLERANCE
        ):  # also false for NaN
            raise ValueError(
                f"pixels go from {low.item():g} to {high.item():g}, but must lie in [-1, 1] and "
                "be finite; uint8 / 127.5 - 1 gives that range"
            )
