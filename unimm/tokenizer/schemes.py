"""The quantization schemes: what each takes of ``vector-quantize-pytorch``, seen the same way.

Shapes: C latent channels, K codebook size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import log2, prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig:
    """Which scheme turns latents into codes.

    Attributes:
        name: ``vq`` (L2-normalised vectors, codebook by moving averages), ``simvq``, ``fsq``,
            ``lfq`` or ``bsq`` (``lfq`` on the unit sphere).
        codebook_size: number of codes K.
        dim: latent channels C. For ``lfq`` and ``bsq`` K must be ``2 ** dim``.
        levels: values of each channel, for ``fsq`` only; their product must be K.
        decay: of the moving averages of ``vq``.
    """

    name: str = "vq"
    codebook_size: int = 4096
    dim: int = 8
    levels: tuple[int, ...] = ()
    decay: float = 0.99

    def __post_init__(self) -> None:
        if self.name not in QUANTIZERS:
            near = get_close_matches(self.name, QUANTIZERS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"unknown quantizer {self.name!r}; {hint}known: {[*QUANTIZERS]}")
        if self.name in ("lfq", "bsq") and log2(self.codebook_size) != self.dim:
            raise ValueError(
                f"{self.name} has one bit a channel: codebook_size {self.codebook_size} "
                f"needs dim {log2(self.codebook_size):g}, not {self.dim}"
            )
        if self.name == "fsq" and (
            len(self.levels) != self.dim or prod(self.levels) != self.codebook_size
        ):
            raise ValueError(
                f"fsq levels {self.levels} must be {self.dim} numbers (dim) whose product is "
                f"codebook_size {self.codebook_size}; for 4096 and dim 4: [8, 8, 8, 8]"
            )


class Scheme(NamedTuple):
    """One way to quantize.

    Attributes:
        build: makes the library's layer.
        to_latents: maps an encoder's output to the space of the codebook.
        codebook: reads the vectors ``(K, C)`` of all codes from the layer.
    """

    build: Callable[[QuantizerConfig], Any]
    to_latents: Callable[[QuantizerConfig, Tensor], Tensor]
    codebook: Callable[[Any], Tensor]


def _build_vq(config: QuantizerConfig) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    return VectorQuantize(
        dim=config.dim,
        codebook_size=config.codebook_size,
        decay=config.decay,
        use_cosine_sim=True,
        commitment_weight=1.0,
        rotation_trick=False,
        # Ours, every some steps: the library's own check waits for the device in each step.
        threshold_ema_dead_code=0,
        sync_codebook=False,
    )


def _build_residual_vq(config: QuantizerConfig) -> nn.Module:
    from vector_quantize_pytorch import VectorQuantize

    layer = VectorQuantize(
        dim=config.dim,
        codebook_size=config.codebook_size,
        decay=config.decay,
        threshold_ema_dead_code=0,
        sync_codebook=False,
    )
    # Residuals of unit vectors have any length up to about 1.
    vectors = torch.randn(1, config.codebook_size, config.dim)
    vectors = F.normalize(vectors, dim=-1) * torch.rand(1, config.codebook_size, 1)
    state: Any = layer._codebook
    state.embed.copy_(vectors)
    state.embed_avg.copy_(vectors)
    return layer


def _build_simvq(config: QuantizerConfig) -> nn.Module:
    from vector_quantize_pytorch import SimVQ

    return SimVQ(dim=config.dim, codebook_size=config.codebook_size, rotation_trick=False)


def _build_fsq(config: QuantizerConfig) -> nn.Module:
    from vector_quantize_pytorch import FSQ

    return FSQ(levels=config.levels, dim=config.dim)


def _build_lfq(config: QuantizerConfig) -> nn.Module:
    from vector_quantize_pytorch import LFQ

    return LFQ(
        dim=config.dim,
        codebook_size=config.codebook_size,
        commitment_loss_weight=1.0,
        spherical=config.name == "bsq",
    )


def _unit(latents: Tensor) -> Tensor:
    return F.normalize(latents, dim=1)


def _fsq_latents(config: QuantizerConfig, encoded: Tensor) -> Tensor:
    """Bound as the library does (Mentzer et al., 2023), without the rounding."""
    levels = torch.tensor(config.levels, device=encoded.device).view(-1, 1, 1)
    half = (levels - 1) * (1 + 1e-3) / 2
    offset = torch.where(levels % 2 == 0, 0.5, 0.0)
    bounded = torch.tanh(encoded + torch.atanh(offset / half)) * half - offset
    return bounded / (levels // 2)


QUANTIZERS: dict[str, Scheme] = {
    "vq": Scheme(_build_vq, lambda _, x: _unit(x), lambda layer: F.normalize(layer.codebook)),
    "simvq": Scheme(_build_simvq, lambda _, x: x, lambda layer: layer.codebook),
    "fsq": Scheme(_build_fsq, _fsq_latents, lambda layer: layer.implicit_codebook),
    "lfq": Scheme(_build_lfq, lambda _, x: x, lambda layer: layer.codebook),
    "bsq": Scheme(_build_lfq, lambda _, x: _unit(x), lambda layer: F.normalize(layer.codebook)),
}

RESIDUAL_VQ = Scheme(_build_residual_vq, lambda _, x: _unit(x), lambda layer: layer.codebook)
