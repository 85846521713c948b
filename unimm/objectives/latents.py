"""The latent space of the frozen tokenizer, as denoising objectives see it: standardised."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from unimm.diffusion.guidance import Guidance
from unimm.diffusion.path import to_data
from unimm.diffusion.times import TimeConfig, sample_times
from unimm.document import (
    NO_CODE,
    Ids,
    ImageTokens,
    Segment,
    SpecialIds,
    image_positions,
    read_only,
)
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import ImageSpec, Watch
from unimm.tokenizer.image import ImageTokenizer

DEFAULT_SAMPLING = (SamplingConfig(guidance_scale=2.0), SamplingConfig(guidance_scale=2.0))
"""Noise as it was trained on, and guidance."""


class LatentSpace:
    """Standardises latents, and finds the codes that later positions read.

    It holds the tokenizer in a plain object, so that no module registers it.

    Args:
        tokenizer: frozen; its statistics were measured on training pictures.
    """

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        if not bool((tokenizer.latent_std > 0).all()):
            raise ValueError(
                "the image tokenizer's latent_std must be positive: train it with its script, "
                "which measures the statistics"
            )
        self._tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        """Where the tokenizer lies."""
        return self._tokenizer.latent_mean.device

    def standardise(self, latents: Tensor) -> Tensor:
        """``(..., C, h, w)`` to mean 0 and variance 1 a channel, float32."""
        mean, std = self._statistics(latents.device)
        return (latents.float() - mean) / std

    def restore(self, standardised: Tensor) -> Tensor:
        """Undo ``standardise``."""
        mean, std = self._statistics(standardised.device)
        return standardised.float() * std + mean

    def to_tokens(self, standardised: Tensor) -> ImageTokens:
        """Drawn latents ``(B, C, h, w)`` as pictures: restored, with their nearest codes."""
        restored = self.restore(standardised)
        codes = self._tokenizer.quantize(restored.to(self.device)).to(restored.device)
        return ImageTokens(codes=codes, latents=restored)

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        tokenizer = self._tokenizer
        mean, std = tokenizer.latent_mean, tokenizer.latent_std
        return tuple(x.to(device)[:, None, None] for x in (mean, std))  # pyright: ignore


def guidance_of(sampling: SamplingConfig, interval: tuple[float, float]) -> Guidance:
    """The same guidance as other objectives', for denoisers."""
    first, *others = sampling.scales or (1.0,)
    return Guidance(scale=first, other_scales=tuple(others), interval=interval)


def tell(watch: Watch | None, space: LatentSpace, x: Tensor, velocity: Tensor, t: float) -> None:
    """Show the data that a point ``(B, C, h, w)`` of the path and its velocity point to."""
    if watch:
        watch(1 - t, lambda: space.to_tokens(to_data(x, velocity, t)))


def latents_of(tokens: ImageTokens) -> Tensor:
    """Latents of training pictures.

    Raises:
        ValueError: if the pictures are codes only.
    """
    if tokens.latents is None:
        raise ValueError(
            "these pictures have codes but no latents, which denoising objectives learn from: "
            "encode the documents again with tokenizers/encode_shards.py --with_latents True"
        )
    return tokens.latents


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Tensor:
    """Noise ``(len(generators), *shape)``, each picture's from its own generator."""
    return torch.stack([torch.randn(tuple(shape), generator=g) for g in generators])


def draw_times(generators: Sequence[torch.Generator], count: int, config: TimeConfig) -> Tensor:
    """Times ``(len(generators), count)`` of each picture, stratified over the density."""
    uniform = torch.stack([torch.rand(count, generator=g) for g in generators])
    return sample_times((torch.arange(count) + uniform) / count, config)


def query_layout(
    tokens: ImageTokens, special: SpecialIds, *, patch_size: int, head: str
) -> Segment:
    """One position a patch in one block, whose inputs the objective fills."""
    assert tokens.codes is not None
    height, width = tokens.codes.shape
    positions = patch_positions(height, width, patch_size)
    blank = np.zeros(len(positions), dtype=np.int64)
    return Segment(
        input_ids=np.full_like(blank, special.pad),
        code_ids=np.full_like(blank, NO_CODE),
        labels=blank,
        position_ids=positions,
        block_ids=blank,
        head=head,
        is_context=False,
        image=tokens,
    )


@lru_cache(maxsize=64)
def patch_positions(height: int, width: int, patch_size: int) -> Ids:
    """Positions ``(n, 3)`` of patches on the finest grid, each at its middle code."""
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"a grid of {height}x{width} codes cannot be cut into patches of {patch_size}: choose "
            "a patch_size that divides it"
        )
    coarse = image_positions(height // patch_size, width // patch_size)
    return read_only(coarse * patch_size + [0, patch_size // 2, patch_size // 2])


def zero_picture(spec: ImageSpec, device: torch.device) -> ImageTokens:
    """One picture of code 0 and zero latents."""
    side = spec.grid_size
    return ImageTokens(
        codes=torch.zeros(1, side, side, dtype=torch.int64, device=device),
        latents=torch.zeros(1, spec.latent_dim, side, side, device=device),
    )


def check_patches(patch_size: int, spec: ImageSpec) -> int:
    """Number of patches of the pictures that a model draws.

    Raises:
        ValueError: if the grid cannot be cut so.
    """
    return len(patch_positions(spec.grid_size, spec.grid_size, patch_size))
