"""The quantizer: latents of an autoencoder to codes of one codebook, and back.

Every scheme of ``vector-quantize-pytorch`` that we offer is seen the same way: a map from the
encoder's output to *latents*, a codebook of vectors among those latents, and the nearest vector
in Euclidean distance. Lookup and embedding therefore know neither the scheme nor the layout of
a picture, so several schedules (one grid, or a pyramid of grids) can share one codebook; only
training goes through the library's layer, which keeps the codebook alive.

Shapes: B batch, C latent channels, h w latent grid, n = h w, K codebook size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from math import log2, prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LOOKUP_CHUNK = 8192  # vectors at once: 128 MB of distances to 4,096 codes


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


class Quantized(NamedTuple):
    """What the training forward gives.

    Attributes:
        vectors: ``(B, C, h, w)`` codebook vectors, gradients straight through to ``latents``.
        codes: ``(B, h, w)`` int64.
        latents: ``(B, C, h, w)`` what the lookup saw.
        loss: scalar, the scheme's own loss (commitment or entropy), unweighted.
    """

    vectors: Tensor
    codes: Tensor
    latents: Tensor
    loss: Tensor


class Quantizer(nn.Module):
    """Codes for latents and vectors for codes, whatever the scheme."""

    codebook: Tensor  # only after ``freeze``

    def __init__(self, config: QuantizerConfig) -> None:
        super().__init__()
        self.config = config
        self.layer: Any = QUANTIZERS[config.name].build(config)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.config.codebook_size

    @property
    def codebook_vectors(self) -> Tensor:
        """All codes' vectors ``(K, C)`` float32, as the lookup compares them."""
        if self.layer is None:
            return self.codebook.float()
        return QUANTIZERS[self.config.name].codebook(self.layer).float()

    def freeze(self, codebook: Tensor) -> None:
        """Keep only a codebook ``(K, C)``: all that use needs, nothing that training needs."""
        self.layer = None
        self.register_buffer("codebook", codebook.float())

    def to_latents(self, encoded: Tensor) -> Tensor:
        """Map an encoder's output ``(B, C, h, w)`` to the space of the codebook, float32."""
        return QUANTIZERS[self.config.name].to_latents(self.config, encoded.float())

    def nearest(self, latents: Tensor) -> Tensor:
        """Find the nearest code of each vector.

        Args:
            latents: ``(..., C, h, w)`` in the space of the codebook.

        Returns:
            ``(..., h, w)`` int64.
        """
        codebook = self.codebook_vectors.detach()
        half_square = 0.5 * codebook.square().sum(dim=1)  # (K,)
        vectors = latents.movedim(-3, -1)  # (..., h, w, C)
        flat = vectors.reshape(-1, vectors.shape[-1]).float()
        # argmin |x - c|^2 = argmax x.c - |c|^2 / 2
        # In half precision near codes would be mistaken for each other.
        with torch.autocast(flat.device.type, enabled=False):
            codes = [
                torch.addmm(-half_square, part, codebook.t()).argmax(dim=1)
                for part in flat.split(_LOOKUP_CHUNK)
            ]
        return torch.cat(codes).reshape(vectors.shape[:-1])

    def embed(self, codes: Tensor) -> Tensor:
        """Give the vectors of codes ``(..., h, w)`` as ``(..., C, h, w)`` float32."""
        return F.embedding(codes, self.codebook_vectors).movedim(-1, -3)

    def forward(self, encoded: Tensor) -> Quantized:
        """Quantize an encoder's output ``(B, C, h, w)``; in training mode the codebook moves."""
        encoded = encoded.float()
        latents = self.to_latents(encoded)
        if not self.training:
            codes = self.nearest(latents)
            return Quantized(self.embed(codes), codes, latents, latents.new_zeros(()))
        if self.layer is None:
            raise ValueError("a frozen quantizer cannot be trained; call eval() first")
        vectors, codes, loss = QUANTIZERS[self.config.name].train(self, encoded, latents)
        return Quantized(vectors, codes, latents, loss)

    @torch.no_grad()
    def replace_dead_codes(
        self, latents: Tensor, *, min_share: float, generator: torch.Generator
    ) -> int:
        """Move codes that hardly anything uses onto random latents of a batch.

        Only ``vq`` has codes that can die for good; for the other schemes nothing happens. It waits
        for the device (it counts), so it is called every some steps, not in each.

        Args:
            latents: ``(B, C, h, w)`` of a recent batch.
            min_share: a code is dead if its moving-average use is below this share of the mean use.
            generator: on the CPU; picks the latents.

        Returns:
            How many codes were replaced, an int.
        """
        if self.config.name != "vq":
            return 0
        state: Any = self.layer._codebook  # cluster_size (1, K), embed and embed_avg (1, K, C)
        threshold = min_share * state.cluster_size.mean()
        dead = (state.cluster_size[0] < threshold).nonzero()[:, 0]
        vectors = latents.movedim(1, -1).reshape(-1, latents.shape[1])
        num_dead = min(len(dead), len(vectors))
        if num_dead == 0:
            return 0
        rows = torch.randperm(len(vectors), generator=generator)[:num_dead].to(latents.device)
        dead = dead[:num_dead]
        fresh = vectors[rows].float()
        state.embed[0, dead] = fresh
        # Born with the use of a barely living code: the first batches decide whether it stays.
        state.cluster_size[0, dead] = threshold
        state.embed_avg[0, dead] = fresh * threshold
        return num_dead


_Trained = tuple[Tensor, Tensor, Tensor]  # vectors (B, C, h, w), codes (B, h, w), loss


def _train_layer(quantizer: Quantizer, encoded: Tensor, latents: Tensor) -> _Trained:
    """Let the library's layer quantize and learn."""
    batch, channels, height, width = encoded.shape
    output = quantizer.layer(encoded.flatten(2).transpose(1, 2))  # from (B, n, C)
    vectors = output[0].transpose(1, 2).reshape(batch, channels, height, width)
    codes = output[1].reshape(batch, height, width).long()
    # FSQ has no loss of its own.
    loss = output[2].sum() if len(output) > 2 else latents.new_zeros(())
    return vectors, codes, loss


def _train_vq(quantizer: Quantizer, encoded: Tensor, latents: Tensor) -> _Trained:
    """Do what ``VectorQuantize.forward`` does, to its state, without its one-hot matrices.

    Those are ``(B n, K)`` four times over and cost five lookups (measured), and the layer waits
    for the device in each step; several schedules could also not share one update.
    """
    state = quantizer.layer._codebook
    codes = quantizer.nearest(latents)
    vectors = quantizer.embed(codes)
    loss = F.mse_loss(latents, vectors)
    with torch.no_grad():
        flat = latents.movedim(1, -1).flatten(0, 2)
        index = codes.flatten()
        counts = torch.zeros_like(state.cluster_size[0])
        counts.index_add_(0, index, torch.ones_like(index, dtype=counts.dtype))
        sums = torch.zeros_like(state.embed_avg[0]).index_add_(0, index, flat)
        state.cluster_size[0].lerp_(counts, 1 - quantizer.config.decay)
        state.embed_avg[0].lerp_(sums, 1 - quantizer.config.decay)
        state.update_ema()
    return latents + (vectors - latents).detach(), codes, loss


class _Scheme(NamedTuple):
    build: Callable[[QuantizerConfig], Any]
    train: Callable[[Quantizer, Tensor, Tensor], _Trained]
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


QUANTIZERS: dict[str, _Scheme] = {
    "vq": _Scheme(
        _build_vq, _train_vq, lambda _, x: _unit(x), lambda layer: F.normalize(layer.codebook)
    ),
    "simvq": _Scheme(_build_simvq, _train_layer, lambda _, x: x, lambda layer: layer.codebook),
    "fsq": _Scheme(_build_fsq, _train_layer, _fsq_latents, lambda layer: layer.implicit_codebook),
    "lfq": _Scheme(_build_lfq, _train_layer, lambda _, x: x, lambda layer: layer.codebook),
    "bsq": _Scheme(
        _build_lfq, _train_layer, lambda _, x: _unit(x), lambda layer: F.normalize(layer.codebook)
    ),
}


@dataclass(frozen=True, kw_only=True)
class CodeUsage:
    """How a codebook is used over many pictures.

    Attributes:
        num_used: codes that occur at all.
        num_dead: codes that never occur.
        perplexity: of the codes' frequencies; the codebook size if all are equally frequent.
    """

    num_used: int
    num_dead: int
    perplexity: float


def code_usage(counts: Tensor) -> CodeUsage:
    """Sum up how often each code occurred, ``counts (K,)``."""
    used = int((counts > 0).sum())
    share = counts.double() / counts.sum().clamp(min=1)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return CodeUsage(num_used=used, num_dead=counts.numel() - used, perplexity=float(entropy.exp()))
