"""Transformer blocks of denoisers: adaLN-Zero, cross-attention, in-context, adaLN-single, MM-DiT.

Legend: ``B`` pictures, ``n`` patches, ``m`` context vectors, ``D`` width.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.adjacent import products
from unimm.nn.embeddings import ZeroLinear
from unimm.nn.fused_modulation import (
    add_fused,
    add_modulate_fused,
    can_fuse,
    norm_heads_fused,
)
from unimm.nn.transformer import RMSNorm

Conditioning = Literal[
    "adaln_zero", "cross_attn", "in_context", "mmdit", "adaln_single", "per_token"
]
_EPS = 1e-6


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


def norm_heads(heads: Tensor, norm: RMSNorm) -> Tensor:
    """Normalise queries or keys ``(B, H, n, D / H)`` that nobody else holds."""
    if norm.training or not can_fuse(heads):
        return norm(heads).to(heads.dtype)  # autocast normalises in float32
    norm_heads_fused((heads, norm.weight), eps=norm.eps)
    return heads


class Queries(nn.Module):
    """Queries of one stream, normalised per head: ``(B, n, D)`` to ``(B, H, n, D / H)``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, dim)
        self.norm = RMSNorm(dim // num_heads, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Project and normalise."""
        return norm_heads(self.cut(self.linear(x)), self.norm)

    def cut(self, projected: Tensor) -> Tensor:
        """Cut into heads."""
        return projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class KeysValues(nn.Module):
    """Keys, normalised per head, and values of one stream: two ``(B, H, n, D / H)``."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.linear = nn.Linear(dim, 2 * dim)
        self.norm = RMSNorm(dim // num_heads, _EPS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Project ``(B, n, D)`` and normalise the keys."""
        key, value = self.cut(self.linear(x))
        return norm_heads(key, self.norm), value

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
    query, (key, value) = queries.cut(query), keys_values.cut(both)
    norms = (query, queries.norm.weight), (key, keys_values.norm.weight)
    norm_heads_fused(*norms, eps=queries.norm.eps)
    return query, key, value


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
            return self.output(attend(*project(x, self.queries, self.keys_values)))
        return self.output(attend(self.queries(x), *self.keys_values(source)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise without weights, then shift and scale: the "adaLN" of DiT."""
    if can_fuse(x, shift, scale):
        return add_modulate_fused(x, None, None, shift, scale, eps=_EPS)[1]
    return functional.layer_norm(x, x.shape[-1:], eps=_EPS) * (1 + scale) + shift


def add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """Add what a branch gave to the stream, gated if there is a gate."""
    if can_fuse(x, branch, gate):
        return add_fused(x, branch, gate)
    return x + (branch if gate is None else gate * branch)


def add_modulate(
    x: Tensor, branch: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """``add`` and then ``modulate``: the stream, and what the next branch sees of it."""
    if can_fuse(x, branch, gate, shift, scale):
        return add_modulate_fused(x, branch, gate, shift, scale, eps=_EPS)
    x = add(x, branch, gate)
    return x, modulate(x, shift, scale)


class Modulation(nn.Module):
    """Shifts, scales and gates from a condition behind its SiLU; all zero at first."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = ZeroLinear(dim, count * dim)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """``(B, 1 or n, D)`` to ``count`` tensors of that shape."""
        return self.linear(condition).chunk(self.count, dim=-1)


class TableModulation(nn.Module):
    """adaLN-single (PixArt-alpha): a learned table added to what one shared layer gives.

    The table starts as noise, as published: such blocks are no identities.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.table = nn.Parameter(torch.randn(count * dim) / math.sqrt(dim))

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """``(B, 1, count D)`` to ``count`` tensors ``(B, 1, D)``."""
        return (self.table + condition).chunk(self.count, dim=-1)


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
        *first, shift, scale, last_gate = self.modulation(condition)
        if self.attention is None:
            seen = modulate(x, shift, scale)
        else:
            seen = modulate(x, first[0], first[1])
            gate, branch = first[2], self.attention(seen, seen)
            if self.cross is not None:
                x = add(x, branch, gate)
                gate, branch = None, self.cross(x, context)
            x, seen = add_modulate(x, branch, gate, shift, scale)
        return add(x, self.mlp(seen), last_gate), context


class PlainBlock(nn.Module):
    """A vision transformer's block: the condition stands in the sequence (in-context)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim, eps=_EPS)
        self.attention = Attention(dim, num_heads)
        self.mlp_norm = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = MLP(dim, mlp_ratio)

    def forward(self, x: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, n + m + 1, D)``; the others pass by."""
        seen = self.attention_norm(x)
        x = x + self.attention(seen, seen)
        return x + self.mlp(self.mlp_norm(x)), context


class Stream(nn.Module):
    """One side of an MM-DiT block; a ``pre_only`` one is looked at and goes no further."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, pre_only: bool) -> None:
        super().__init__()
        self.modulation = Modulation(dim, 2 if pre_only else 6)
        self.keys_values = KeysValues(dim, num_heads)
        self.queries = None if pre_only else Queries(dim, num_heads)
        self.output = None if pre_only else nn.Linear(dim, dim)
        self.mlp = None if pre_only else MLP(dim, mlp_ratio)

    def finish(self, x: Tensor, mixed: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """Add the joint attention's result and the feed-forward to ``x (B, n, D)``."""
        assert self.output is not None and self.mlp is not None
        gate, shift, scale, last_gate = modulation[2:]
        x, seen = add_modulate(x, self.output(mixed), gate, shift, scale)
        return add(x, self.mlp(seen), last_gate)


class MMDiTBlock(nn.Module):
    """Two streams with weights of their own and one attention over both (Esser et al., 2024)."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, *, is_last: bool) -> None:
        super().__init__()
        self.image = Stream(dim, num_heads, mlp_ratio, pre_only=False)
        self.context = Stream(dim, num_heads, mlp_ratio, pre_only=is_last)

    def forward(self, x: Tensor, context: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """``x (B, n, D)``, ``context (B, m, D)``, ``condition (B, 1, D)`` to x, context."""
        assert self.image.queries is not None
        ours, theirs = self.image.modulation(condition), self.context.modulation(condition)
        image, told = modulate(x, ours[0], ours[1]), modulate(context, theirs[0], theirs[1])
        query, *seen = project(image, self.image.queries, self.image.keys_values)
        if self.context.queries is None:
            sides = zip(seen, self.context.keys_values(told), strict=True)
            key, value = (torch.cat(pair, dim=2) for pair in sides)  # (B, H, n + m, D / H)
            return self.image.finish(x, attend(query, key, value), ours), context
        others = project(told, self.context.queries, self.context.keys_values)
        sides = zip((query, *seen), others, strict=True)
        mixed = attend(*(torch.cat(pair, dim=2) for pair in sides))
        first, second = mixed.split([x.shape[1], context.shape[1]], dim=1)
        return self.image.finish(x, first, ours), self.context.finish(context, second, theirs)
