"""The quantizer: latents of an autoencoder to codes of one codebook, and back.

Every scheme of ``vector-quantize-pytorch`` that we offer is seen the same way: a map from the
encoder's output to *latents*, a codebook of vectors among those latents, and the nearest vector
in Euclidean distance. Lookup and embedding therefore know neither the scheme nor the layout of
a picture, so several schedules (one grid, or a pyramid of grids) can share one codebook; only
training goes through the library's layer, or through ``learn``, which keeps the codebook alive.

Shapes: B batch, C latent channels, h w latent grid, n = h w, K codebook size.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unimm.distributed import all_reduce_sum, rank
from unimm.tokenizer.schemes import QUANTIZERS, RESIDUAL_VQ, QuantizerConfig

_LOOKUP_CHUNK = 8192  # vectors at once: 128 MB of distances to 4,096 codes


class Quantized(NamedTuple):
    """What the training forward gives.

    Attributes:
        vectors: ``(B, C, h, w)`` codebook vectors, gradients straight through to ``latents``.
        codes: ``(B, h, w)`` int64; of several schedules all their codes, flat.
        latents: ``(B, C, h, w)`` what the lookup saw.
        loss: scalar, the scheme's own loss (commitment or entropy), unweighted.
    """

    vectors: Tensor
    codes: Tensor
    latents: Tensor
    loss: Tensor


class Quantizer(nn.Module):
    """Codes for latents and vectors for codes, whatever the scheme.

    Args:
        config: scheme and sizes.
        is_residual: for ``vq`` only: vectors of any length, since residuals get shorter from scale
            to scale; else all have length 1, as the latents have.
    """

    codebook: Tensor  # only after ``freeze``

    def __init__(self, config: QuantizerConfig, *, is_residual: bool = False) -> None:
        super().__init__()
        assert config.name == "vq" or not is_residual, config.name
        self.config = config
        self._scheme = RESIDUAL_VQ if is_residual else QUANTIZERS[config.name]
        self.layer: Any = self._scheme.build(config)

    @property
    def codebook_size(self) -> int:
        """Number of codes."""
        return self.config.codebook_size

    @property
    def codebook_vectors(self) -> Tensor:
        """All codes' vectors ``(K, C)`` float32, as the lookup compares them."""
        if self.layer is None:
            return self.codebook.float()
        return self._scheme.codebook(self.layer).float()

    def freeze(self, codebook: Tensor) -> None:
        """Keep only a codebook ``(K, C)``: all that use needs, nothing that training needs."""
        self.layer = None
        self.register_buffer("codebook", codebook.float())

    def to_latents(self, encoded: Tensor) -> Tensor:
        """Map an encoder's output ``(B, C, h, w)`` to the space of the codebook, float32."""
        return self._scheme.to_latents(self.config, encoded.float())

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
        train = _train_vq if self.config.name == "vq" else _train_layer
        vectors, codes, loss = train(self, encoded, latents)
        return Quantized(vectors, codes, latents, loss)

    @torch.no_grad()
    def learn(self, seen: Tensor, codes: Tensor) -> None:
        """Move the codebook of ``vq`` towards what it stood for, by moving averages.

        Counts and sums of all ranks go in, by one collective that every rank runs in every call, so
        the ranks' codebooks stay equal.

        Args:
            seen: ``(n, C)`` what the lookup saw.
            codes: ``(n,)`` what it gave.
        """
        state = self.layer._codebook
        ones = seen.new_ones(len(seen), 1)
        totals = seen.new_zeros(self.codebook_size, seen.shape[1] + 1)  # vectors' sums, counts
        totals.index_add_(0, codes, torch.cat([seen, ones], dim=1))
        all_reduce_sum(totals)
        state.cluster_size[0].lerp_(totals[:, -1], 1 - self.config.decay)
        state.embed_avg[0].lerp_(totals[:, :-1], 1 - self.config.decay)
        state.update_ema()

    @torch.no_grad()
    def replace_dead_codes(
        self, seen: Tensor, *, min_share: float, generator: torch.Generator
    ) -> int:
        """Move codes that hardly anything uses onto random vectors of a batch.

        Only ``vq`` has codes that can die for good; for the other schemes nothing happens. It waits
        for the device (it counts), so it is called every some steps, not in each; all ranks call it
        and get the first rank's vectors.

        Args:
            seen: ``(n, C)`` what the lookup of a recent batch saw.
            min_share: a code is dead if its moving-average use is below this share of the mean use.
            generator: on the CPU; picks the vectors.

        Returns:
            How many codes were replaced, an int.
        """
        if self.config.name != "vq":
            return 0
        rows = torch.randperm(len(seen), generator=generator)[: self.codebook_size]
        fresh = seen[rows.to(seen.device)].float() * (rank() == 0)
        all_reduce_sum(fresh)
        state: Any = self.layer._codebook  # cluster_size (1, K), embed and embed_avg (1, K, C)
        threshold = min_share * state.cluster_size.mean()
        dead = (state.cluster_size[0] < threshold).nonzero()[: len(fresh), 0]
        fresh = fresh[: len(dead)]
        state.embed[0, dead] = fresh
        # Born with the use of a barely living code: the first batches decide whether it stays.
        state.cluster_size[0, dead] = threshold
        state.embed_avg[0, dead] = fresh * threshold
        return len(dead)


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
    codes = quantizer.nearest(latents)
    vectors = quantizer.embed(codes)
    loss = F.mse_loss(latents, vectors)
    quantizer.learn(flat_vectors(latents).detach(), codes.flatten())
    return latents + (vectors - latents).detach(), codes, loss


def flat_vectors(latents: Tensor) -> Tensor:
    """All vectors of latents ``(B, C, h, w)`` as ``(B h w, C)``, in the order of their codes."""
    return latents.movedim(1, -1).flatten(0, 2)
