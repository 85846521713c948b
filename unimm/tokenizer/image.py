"""The image tokenizer: pixels to ``ImageTokens`` and back.

It gives a picture's codes in *schedules*: ``single``, one grid, or a pyramid of grids named by
their sides, such as ``1-2-4-8-16``. Contexts are always made of single-scale codes; those of a
picture in a pyramid's schedule are found from the sum of its scales, as a trunk leaves it behind.

Shapes: B batch, H W picture, h w code grid (picture sides over ``downsample``), C latent channels,
K codebook size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from unimm.document import ImageTokens
from unimm.tokenizer.autoencoder import Decoder, Encoder
from unimm.tokenizer.fast_decoder import draw
from unimm.tokenizer.fused_norm import has_fast_path
from unimm.tokenizer.image_config import ImageTokenizerConfig
from unimm.tokenizer.pixels import check_pixels
from unimm.tokenizer.pyramid import Pyramid, parse_schedule
from unimm.tokenizer.quantizer import Quantizer, flat_vectors
from unimm.tokenizer.schedules import SINGLE, learn_schedules


class Reconstruction(NamedTuple):
    """What the training forward gives.

    Attributes:
        pixels: ``(B, 3, H, W)`` float32.
        codes: int64, all codes that the pictures are made of.
        seen: what each of ``ImageTokenizer.codebooks`` looked up, ``(n, C)`` a codebook.
        quantizer_loss: scalar.
    """

    pixels: Tensor
    codes: Tensor
    seen: tuple[Tensor, ...]
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
        has_pyramid = bool(config.pyramids)
        self.quantizer = Quantizer(config.quantizer, is_residual=has_pyramid and config.is_shared)
        self.pyramid = Pyramid(dim) if has_pyramid else None
        self.scale_quantizer = (
            Quantizer(config.quantizer, is_residual=True)
            if has_pyramid and not config.is_shared
            else None
        )
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
        """Vectors of all single-scale codes, ``(K, C)`` float32, in the space of the latents."""
        return self.quantizer.codebook_vectors

    @property
    def codebooks(self) -> tuple[Quantizer, ...]:
        """All codebooks, the one that pictures are drawn from first."""
        return tuple(q for q in (self.scale_quantizer, self.quantizer) if q is not None)

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
    def encode(self, pixels: Tensor, schedule: str = SINGLE) -> ImageTokens:
        """Encode pictures.

        Args:
            pixels: ``(B, 3, H, W)`` float in [-1, 1], or ``(3, H, W)`` for one picture.
            schedule: code layout, ``single`` or a pyramid.

        Returns:
            As ``to_tokens``; without B for one picture.

        Raises:
            ValueError: on another shape or type, values outside [-1, 1] or NaN, or a schedule that
                this tokenizer or this size does not have.
        """
        check_pixels(pixels)
        self.grid_size(pixels.shape[-2], pixels.shape[-1])
        if pixels.ndim == 3:
            return self.encode(pixels.unsqueeze(0), schedule)[0]
        latents = self.quantizer.to_latents(self.encoder(pixels.to(self.dtype)))
        return self.to_tokens(latents, schedule)

    @torch.no_grad()
    def to_tokens(self, latents: Tensor, schedule: str = SINGLE) -> ImageTokens:
        """Quantize latents ``(B, C, h, w)``.

        Returns:
            ``codes (B, h, w)`` and ``latents``; of a pyramid also ``scale_codes``, and the codes
            are those of the sum of its scales.
        """
        if schedule == SINGLE:
            return ImageTokens(codes=self.quantizer.nearest(latents), latents=latents)
        found = self._pyramid().encode(latents, parse_schedule(schedule), self.codebooks[0])
        return ImageTokens(
            codes=self.quantizer.nearest(found.sums[-1]), scale_codes=found.codes, latents=latents
        )

    @torch.no_grad()
    def decode(self, tokens: ImageTokens, *, prefer_latents: bool = False) -> Tensor:
        """Draw pictures from their tokens.

        Args:
            tokens: ``scale_codes``, ``codes (B, h, w)`` or ``latents (B, C, h, w)``, with or
                without B.
            prefer_latents: which to draw if latents are there too; codes by default, those of all
                scales if there are any, since they are what a trunk writes.

        Returns:
            ``(B, 3, H, W)`` float32 in [-1, 1]; without B for one picture.

        Raises:
            ValueError: if there are none of them, or a code is out of range.
        """
        drawn = self.drawn_of(tokens, prefer_latents=prefer_latents)
        return self.decode_vectors(self.vectors_of(drawn))

    def drawn_of(self, tokens: ImageTokens, *, prefer_latents: bool = False) -> ImageTokens:
        """What of these tokens ``decode`` draws, and nothing else; arguments and errors as there.

        Codes are checked where they lie, which on a GPU waits for it: ask before they are moved.
        """
        if tokens.latents is not None and (prefer_latents or not tokens.has_codes):
            return ImageTokens(latents=tokens.latents)
        if not tokens.has_codes:
            raise ValueError("these tokens have neither codes nor latents; nothing can be decoded")
        used = ImageTokens(
            codes=None if tokens.scale_codes else tokens.codes, scale_codes=tokens.scale_codes
        )
        self._check_codes(used.tensors())
        return used

    @torch.no_grad()
    def vectors_of(self, drawn: ImageTokens) -> Tensor:
        """What the decoder draws of ``drawn_of``'s tokens, ``(B, C, h, w)``, with or without B."""
        if drawn.latents is not None:
            return drawn.latents
        if drawn.codes is not None:
            return self.quantizer.embed(drawn.codes)
        codes = drawn.scale_codes
        if codes[0].ndim == 2:
            return self.sums(tuple(grid[None] for grid in codes))[0, -1]
        return self.sums(codes)[:, -1]

    @torch.no_grad()
    def reconstruct(self, pixels: Tensor, schedule: str = SINGLE) -> Tensor:
        """What is left of pictures after their codes: ``decode(encode(pixels))``."""
        return self.decode(self.encode(pixels, schedule))

    def decode_codes(self, codes: Tensor) -> Tensor:
        """Draw ``(B, 3, H, W)`` in [-1, 1] from codes ``(B, h, w)``, with or without B.

        Raises:
            ValueError: if a code is out of range.
        """
        return self.decode(ImageTokens(codes=codes))

    def sums(self, scale_codes: tuple[Tensor, ...]) -> Tensor:
        """Sums of all scales up to each one, ``(B, scales, C, h, h)``."""
        scales = tuple(codes.shape[-1] for codes in scale_codes)
        return self._pyramid().sums(scale_codes, scales, self.codebooks[0])

    def inputs(self, scale_codes: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What each scale but the first is predicted from: sums of the coarser, on its grid."""
        scales = tuple(codes.shape[-1] for codes in scale_codes)
        return self._pyramid().inputs(scale_codes, scales, self.codebooks[0])

    @torch.no_grad()
    def add_scale(
        self, total: Tensor, codes: Tensor, scale: int, scales: tuple[int, ...]
    ) -> Tensor:
        """Add the codes ``(B, n, n)`` of one scale to the sum ``(B, C, h, h)`` of the coarser."""
        return total + self._pyramid().grow(self.codebooks[0].embed(codes), scale, scales)

    def shrink(self, total: Tensor, side: int) -> Tensor:
        """Average a sum ``(B, C, h, h)`` down to the next scale's grid ``(B, C, n, n)``."""
        return self._pyramid().shrink(total, side)

    @torch.no_grad()
    def decode_vectors(self, vectors: Tensor) -> Tensor:
        """Draw ``(B, 3, H, W)`` in [-1, 1] from latents ``(B, C, h, w)``, with or without B."""
        if vectors.ndim == 3:
            return self.decode_vectors(vectors.unsqueeze(0))[0]
        if has_fast_path(vectors):
            return draw(self.decoder, vectors).clamp(-1.0, 1.0)
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
        if self.pyramid is not None:
            return self._train_schedules(encoded, self.pyramid, num_bypassed)
        quantized = self.quantizer(encoded)
        vectors = quantized.vectors
        if num_bypassed:
            vectors = torch.cat([vectors[:-num_bypassed], quantized.latents[-num_bypassed:]])
        seen = (flat_vectors(quantized.latents.detach()),)
        return Reconstruction(self.decoder(vectors), quantized.codes, seen, quantized.loss)

    def _train_schedules(
        self, encoded: Tensor, pyramid: Pyramid, num_bypassed: int
    ) -> Reconstruction:
        latents = self.quantizer.to_latents(encoded)
        num_coded = len(latents) - num_bypassed
        schedules = [() if name == SINGLE else parse_schedule(name) for name in self.schedules]
        found = learn_schedules(
            latents[:num_coded],
            schedules,
            pyramid=pyramid,
            quantizer=self.codebooks[0],
            copy_quantizer=None if self.scale_quantizer is None else self.quantizer,
        )
        pixels = self.decoder(torch.cat([found.vectors, latents[num_coded:]]))
        return Reconstruction(pixels, found.codes, found.seen, found.loss)

    def _pyramid(self) -> Pyramid:
        if self.pyramid is None:
            raise ValueError(
                f"this image tokenizer was trained on {', '.join(self.schedules)} only and has "
                "no pyramid: train one with such a schedule (tokenizer.schedules)"
            )
        return self.pyramid

    def _check_codes(self, grids: tuple[Tensor, ...]) -> None:
        found = torch.cat([codes.flatten() for codes in grids])
        if not len(found):
            return
        low, high = torch.stack(found.aminmax()).tolist()  # one wait for the device
        if not 0 <= low <= high < self.codebook_size:
            raise ValueError(
                f"codes from {low} to {high} do not fit a codebook of "
                f"{self.codebook_size}: were they made by another image tokenizer?"
            )
