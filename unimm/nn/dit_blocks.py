"""Transformer blocks of denoisers: adaLN-Zero, cross-attention, in-context, adaLN-single, MM-DiT.

Legend: ``B`` pictures, ``n`` patches, ``m`` context vectors, ``D`` width.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.adjacent import products
from unimm.nn.embeddings import ZeroLinear
from unimm.nn.fused_modulation import can_fuse, norm_heads_fused
from unimm.nn.modulation import EPS, Modulation, Modulations, Residual, TableModulation
from unimm.nn.normed_attention import can_attend, normed_attention
from unimm.nn.transformer import RMSNorm

Conditioning = Literal[
    "adaln_zero", "cross_attn", "in_context", "mmdit", "adaln_single", "per_token"
]


class MLP(nn.Sequential):
    """Two linear layers around a GELU."""

    def __init__(self, dim: int, ratio: float) -> None:
        inner = int(dim * ratio)
        super().__init__(nn.Linear(dim, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, dim))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, n, D)`` to ``(B, n, D)``."""
        first, _, last = self
        assert isinstance(first, nn.Linear)
        is_half = x.is_cuda and x.dtype != torch.float32
        if self.training or not is_half or not can_fuse(x):
            return super().forward(x)
        # As part of a product a GPU applies this GELU, in half precision well enough; a CPU, the
        # exact one.
        gelu_of_product: Any = torch._addmm_activation  # pyright: ignore[reportPrivateImportUsage]
        inner = gelu_of_product(first.bias, x.flatten(0, 1), first.weight.t(), use_gelu=True)
        return last(inner).view(x.shape)


class Queries(nn.Module):
    """Queries of one stream, with a norm for each head that is left to ``normalise``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, dim)
        self.norm = RMSNorm(dim // num_heads, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Project ``(B, n, D)`` to ``(B, H, n, D / H)``."""
        return self.cut(self.linear(x))

    def cut(self, projected: Tensor) -> Tensor:
        """Cut into heads."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class KeysValues(nn.Module):
    """Keys, with a norm for each head that is left to ``normalise``, and values of one stream."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, 2 * dim)
        self.norm = RMSNorm(dim // num_heads, EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project ``(B, n, D)`` to two ``(B, H, n, D / H)``."""
        return self.cut(self.linear(x))

    def cut(self, projected: Tensor) -> tuple[Tensor, Tensor]:
        """Cut ``(B, n, 2 D)`` into heads of keys and of values."""
        both = projected.unflatten(-1, (2, self.num_heads, -1))  # (B, n, 2, H, D / H)
        key, value = both.permute(2, 0, 3, 1, 4).unbind(0)
        return key, value


def project(x: Tensor, queries: Queries, keys_values: KeysValues) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of one stream ``(B, n, D)``: three ``(B, H, n, D / H)``."""
    if queries.training or not can_fuse(x):
        return queries(x), *keys_values(x)
    layers = (queries.linear, keys_values.linear)
    query, both = products(x, [layer.weight for layer in layers], [layer.bias for layer in layers])
    return queries.cut(query), *keys_values.cut(both)


def normalise(*heads: tuple[Tensor, RMSNorm]) -> list[Tensor]:
    """Heads ``(B, H, n, D / H)`` that nobody else holds, normalised."""
    if heads[0][1].training or not can_fuse(*(x for x, _ in heads)):
        return [norm(x).to(x.dtype) for x, norm in heads]  # autocast normalises in float32
    is_one_pass = len({x.shape for x, _ in heads}) == 1
    for some in [heads] if is_one_pass else [[pair] for pair in heads]:
        norm_heads_fused(*((x, norm.weight) for x, norm in some), eps=EPS)
    return [x for x, _ in heads]


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend without a mask and join the heads: ``(B, n, D)``."""
    mixed = functional.scaled_dot_product_attention(query, key, value)
    return mixed.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Places look at a source: at themselves, or at the context.

    Args:
        dim: width ``D``.
        num_heads: heads.
        is_zero: starts as zero, as cross-attention without a gate should (PixArt).
    """

    def __init__(self, dim: int, num_heads: int, *, is_zero: bool = False) -> None:
        super().__init__()
        self.queries = Queries(dim, num_heads)
        self.keys_values = KeysValues(dim, num_heads)
        self.output = (ZeroLinear if is_zero else nn.Linear)(dim, dim)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """``x (B, n, D)`` and ``source (B, m, D)`` to ``(B, n, D)``."""
        if x is source:
            query, key, value = project(x, self.queries, self.keys_values)
        else:
            query, (key, value) = self.queries(x), self.keys_values(source)
        norms = self.queries.norm, self.keys_values.norm
        if not self.training and can_fuse(query, key) and can_attend(query, key):
            weights = norms[0].weight, norms[1].weight
            return self.output(normed_attention(query, key, value, weights, eps=EPS))
        query, key = normalise((query, norms[0]), (key, norms[1]))
        return self.output(attend(query, key, value))


class Block(nn.Module):
    """Attention, maybe cross-attention, feed-forward, each modulated and gated.

    Args:
        dim: width ``D``.
        num_heads: of the attentions.
        mlp_ratio: inner width of the feed-forward over ``D``.
        conditioning: ``per_token`` has no attention: MAR's residual block.
    """

    def __init__(
        self, dim: int, num_heads: int, mlp_ratio: float, conditioning: Conditioning
    ) -> None:
        super().__init__()
        is_mixing = conditioning != "per_token"
        makes = TableModulation if conditioning == "adaln_single" else Modulation
        self.modulation = makes(dim, 6 if is_mixing else 3)
        self.attention = Attention(dim, num_heads) if is_mixing else None
        has_cross = conditioning in ("cross_attn", "adaln_single")
        self.cross = Attention(dim, num_heads, is_zero=True) if has_cross else None
        self.mlp = MLP(dim, mlp_ratio)

    def forward(self, x: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, n, D)``, ``context (B, m, D)``, ``condition (B, 1 or n, D)`` to x, context."""
        stream = Residual(x)
        self.advance(stream, Residual(context), iter([self.modulation(condition)]))
        return stream.sum(), context

    def advance(self, x: Residual, context: Residual, modulations: Modulations) -> None:
        """``forward`` upon streams."""
        *first, shift, scale, last_gate = next(modulations)
        if self.attention is not None:
            seen = x.modulate(first[0], first[1])
            x.add(self.attention(seen, seen), first[2])
            if self.cross is not None:
                x.add(self.cross(x.sum(), context.sum()))
        x.add(self.mlp(x.modulate(shift, scale)), last_gate)


class PlainBlock(nn.Module):
    """A vision transformer's block: the condition stands in the sequence (in-context)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=EPS)
        self.attention = Attention(dim, num_heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=EPS)
        self.mlp = MLP(dim, mlp_ratio)

    def forward(self, x: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, n + m + 1, D)``; the others pass by."""
        stream = Residual(x)
        self.advance(stream, Residual(context), iter(()))
        return stream.sum(), context

    def advance(self, x: Residual, context: Residual, modulations: Modulations) -> None:
        """``forward`` upon streams."""
        seen = self.attention_norm(x.sum())
        x.add(self.attention(seen, seen))
        x.add(self.mlp(self.mlp_norm(x.sum())))


class Stream(nn.Module):
    """One side of an MM-DiT block; a ``pre_only`` one is looked at and goes no further."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, pre_only: bool) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 2 if pre_only else 6)
        self.keys_values = KeysValues(dim, num_heads)
        self.queries = None if pre_only else Queries(dim, num_heads)
        self.output = None if pre_only else nn.Linear(dim, dim)
        self.mlp = None if pre_only else MLP(dim, mlp_ratio)

    def look(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of ``(B, n, D)``, ``(B, H, n, D / H)`` each."""
        assert self.queries is not None
        query, key, value = project(x, self.queries, self.keys_values)
        query, key = normalise((query, self.queries.norm), (key, self.keys_values.norm))
        return query, key, value

    def show(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values alone."""
        key, value = self.keys_values(x)
        (key,) = normalise((key, self.keys_values.norm))
        return key, value

    def finish(self, x: Residual, mixed: Tensor, modulation: tuple[Tensor, ...]) -> None:
        """Add the joint attention's result ``(B, n, D)`` and the feed-forward."""
        assert self.output is not None and self.mlp is not None
        gate, shift, scale, last_gate = modulation[2:]
        x.add(self.output(mixed), gate)
        x.add(self.mlp(x.modulate(shift, scale)), last_gate)


class MMDiTBlock(nn.Module):
    """Two streams with weights of their own and one attention over both (Esser et al., 2024)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, is_last: bool) -> None:
        super().__init__()
        self.image = Stream(dim, num_heads, mlp_ratio, pre_only=False)
        self.context = Stream(dim, num_heads, mlp_ratio, pre_only=is_last)

    def forward(self, x: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, n, D)``, ``context (B, m, D)``, ``condition (B, 1, D)`` to x, context."""
        streams = Residual(x), Residual(context)
        both = self.image.modulation(condition), self.context.modulation(condition)
        self.advance(*streams, iter(both))
        return streams[0].sum(), streams[1].sum()

    def advance(self, x: Residual, context: Residual, modulations: Modulations) -> None:
        """``forward`` upon streams."""
        ours, theirs = next(modulations), next(modulations)
        image, told = x.modulate(*ours[:2]), context.modulate(*theirs[:2])
        query, *seen = self.image.look(image)
        if self.context.queries is None:
            sides = zip(seen, self.context.show(told), strict=True)
            key, value = (torch.cat(pair, dim=2) for pair in sides)  # (B, H, n + m, D / H)
            self.image.finish(x, attend(query, key, value), ours)
            return
        sides = zip((query, *seen), self.context.look(told), strict=True)
        mixed = attend(*(torch.cat(pair, dim=2) for pair in sides))
        first, second = mixed.split([image.shape[1], told.shape[1]], dim=1)
        self.image.finish(x, first, ours)
        self.context.finish(context, second, theirs)


AnyBlock = Block | PlainBlock | MMDiTBlock
"""What a denoiser is made of.

``forward`` maps tensors and takes its weights itself. ``advance`` leaves its last sums to who reads
the streams next and is given modulations: fewer kernels, but nothing around a block (a compiler,
checkpoints, ZeRO's hooks) sees it, so it is for inference.
"""
