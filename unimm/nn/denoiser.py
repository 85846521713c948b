"""The denoiser: DiT blocks that draw a latent grid, told what by one context vector a patch.

Legend: ``B`` pictures, ``C, h, w`` latents, ``p`` patch side, ``n`` patches, ``D`` width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.adjacent import lay_together
from unimm.nn.dit_blocks import (
    AnyBlock,
    Attention,
    Block,
    Conditioning,
    MMDiTBlock,
    PlainBlock,
    Stream,
)
from unimm.nn.embeddings import (
    TimeEmbedding,
    ZeroLinear,
    from_patches,
    grid_sinusoid,
    to_patches,
)
from unimm.nn.modulation import (
    Modulation,
    Modulations,
    Residual,
    TableModulation,
    add,
    joined_modulations,
)


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """Sizes of a denoiser.

    Attributes:
        dim: width ``D``.
        depth: blocks.
        num_heads: of the attentions.
        mlp_ratio: inner width of the feed-forward over ``D``.
        patch_size: side ``p`` of the patches that latents are cut into.
        conditioning: how blocks are told what to draw. ``adaln_zero`` modulates every patch by time
            and its own context vector (Peebles and Xie, 2023); ``per_token`` is the same without
            attention (MAR's and NextStep-1's head); ``cross_attn``, ``in_context`` and ``mmdit``
            (Esser et al., 2024) attend to all vectors; ``adaln_single`` is cross-attention with one
            modulation shared by all blocks (PixArt-alpha).
        num_scalars: micro-conditioning numbers a picture (SDXL).
    """

    dim: int = 256
    depth: int = 6
    num_heads: int = 4
    mlp_ratio: float = 4.0
    patch_size: int = 1
    conditioning: Conditioning = "adaln_zero"
    num_scalars: int = 0

    def __post_init__(self) -> None:
        if self.dim % self.num_heads or self.dim % 4:
            raise ValueError(
                f"dim {self.dim} must be a multiple of num_heads {self.num_heads} and of 4"
            )
        if self.depth < 1 or self.patch_size < 1:
            raise ValueError(
                f"depth {self.depth} and patch_size {self.patch_size} must be at least 1"
            )


class Denoised(NamedTuple):
    """What a denoiser gives.

    Attributes:
        velocity: ``(B, C, h, w)`` float32.
        features: ``(B, D, h / p, w / p)`` after each block that was asked for.
    """

    velocity: Tensor
    features: tuple[Tensor, ...]


class Denoiser(nn.Module):
    """Predicts the velocity of noisy latents.

    Args:
        config: sizes.
        latent_dim: channels ``C``.
        context_dim: width of the context vectors.
    """

    def __init__(self, config: DenoiserConfig, *, latent_dim: int, context_dim: int) -> None:
        super().__init__()
        self.config = config
        dim, channels = config.dim, latent_dim * config.patch_size**2
        self.time = TimeEmbedding(dim, config.num_scalars)
        self.input = nn.Linear(channels, dim)
        self.context = nn.Linear(context_dim, dim)
        # One layer for all blocks, and at the end for the final two (PixArt-alpha, section 2.2).
        is_single = config.conditioning == "adaln_single"
        self.shared = nn.Linear(dim, 6 * dim) if is_single else None
        self.blocks = nn.ModuleList(self._block(i) for i in range(config.depth))
        self.modulation = TableModulation(dim, 2) if is_single else Modulation(dim, 2)
        self.output = ZeroLinear(dim, channels)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor,
        *,
        scalars: Tensor | None = None,
        layers: Sequence[int] = (),
    ) -> Denoised:
        """Predict velocities.

        Args:
            x: ``(B, C, h, w)`` noisy latents.
            t: ``(B,)`` float32 times.
            context: ``(B, n, context_dim)``, one vector a patch, raster order.
            scalars: ``(B, num_scalars)`` float32.
            layers: blocks whose features are given, negative from the end.
        """
        config, (_, _, height, width) = self.config, x.shape
        p = config.patch_size
        grid = (height // p, width // p)
        num_patches = grid[0] * grid[1]
        assert context.shape[1] == num_patches, (context.shape, x.shape)

        dtype = self.input.weight.dtype
        places = grid_sinusoid(*grid, config.dim, x.device, dtype)  # (n, D)
        hidden = add(self.input(to_patches(x, p).to(dtype)), places, None)  # (B, n, D)
        told = add(self.context(context.to(dtype)), places, None)  # (B, n, D)
        time = self.time(t, scalars)[:, None]  # (B, 1, D)
        condition, final = self._conditions(time, told)
        if config.conditioning == "in_context":
            hidden = torch.cat([hidden, told, time], dim=1)  # (B, 2 n + 1, D)

        wanted = [layer % config.depth for layer in layers]
        features: dict[int, Tensor] = {}
        # Compilers, checkpoints and hooks of ZeRO 3 lie around whole blocks.
        is_whole = self.training or torch.is_grad_enabled() or torch.compiler.is_compiling()
        given = None if is_whole else self._modulations(condition, final)
        stream, others = Residual(hidden), Residual(told)
        for i, block in enumerate(self.blocks):
            if given is None:
                stream, others = map(Residual, block(stream.sum(), others.sum(), condition))
            else:
                assert isinstance(block, AnyBlock)
                block.advance(stream, others, given)
            if i in wanted:
                seen = stream.sum()[:, :num_patches].transpose(1, 2)
                features[i] = seen.unflatten(-1, grid)  # (B, D, h / p, w / p)
        stream.keep(num_patches)
        shift, scale = self.modulation(final) if given is None else next(given)
        patches = self.output(stream.modulate(shift, scale)).float()  # (B, n, C p p)
        return Denoised(from_patches(patches, p, height), tuple(features[i] for i in wanted))

    def lay_together(self) -> None:
        """Move matrices that read the same behind each other: inference takes them as one."""
        for module in self.modules():
            if isinstance(module, (Attention, Stream)) and module.queries is not None:
                lay_together((module.queries.linear, module.keys_values.linear))
        if self.shared is None:
            lay_together([module.linear for module in self._own_modulations()])

    def _block(self, number: int) -> nn.Module:
        config = self.config
        sizes = (config.dim, config.num_heads, config.mlp_ratio)
        if config.conditioning == "mmdit":
            return MMDiTBlock(*sizes, is_last=number == config.depth - 1)
        if config.conditioning == "in_context":
            return PlainBlock(*sizes)
        return Block(*sizes, config.conditioning)

    def _own_modulations(self) -> list[Modulation]:
        """Those of the blocks and the last one, in the order in which they are taken."""
        return [module for module in self.modules() if isinstance(module, Modulation)]

    def _modulations(self, condition: Tensor, final: Tensor) -> Modulations:
        """What blocks are given, and at the end what modulates the output's input."""
        if self.shared is None:
            yield from joined_modulations(self._own_modulations(), condition)
            return
        for block in self.blocks:
            assert isinstance(block, Block)
            yield block.modulation(condition)
        yield self.modulation(final)

    def _conditions(self, time: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """What modulates blocks, and what at the end the output's input: ``(B, 1 or n, D)``.

        That is time, with each patch's own vector or the mean of all (SD3's pooled); SiLU is taken
        once for all blocks.
        """
        if self.shared is not None:
            return self.shared(functional.silu(time)), torch.cat([time, time], dim=-1)
        if self.config.conditioning in ("adaln_zero", "per_token"):
            time = add(told, time, None)
        elif self.config.conditioning == "mmdit":
            time = time + told.mean(1, keepdim=True)
        condition = functional.silu(time)
        return condition, condition
