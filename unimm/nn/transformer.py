"""The trunk: a Llama/Qwen3-compatible decoder that never learns what a modality is.

It sees embeddings ``(B, n, D)``, positions ``(B, n, 3)`` and who may see whom. Parameter names are
those of ``transformers``, so pretrained checkpoints load directly.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unimm.nn.add_norm import add_norm
from unimm.nn.adjacent import joined_product, lay_together
from unimm.nn.attention import Visibility, attend
from unimm.nn.joined_attention import joined_attention
from unimm.nn.kv_cache import CacheView
from unimm.nn.linear import Linear
from unimm.nn.rope import apply_rope, rope_cos_sin
from unimm.nn.sequence import SequenceGroup
from unimm.nn.swiglu import swiglu


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Sizes of the trunk.

    Attributes:
        dim: width ``D``.
        depth: layers.
        num_heads: query heads ``H``.
        num_kv_heads: key and value heads (grouped-query attention).
        head_dim: width of a head; ``dim / num_heads`` when 0.
        ffn_dim: inner width of the SwiGLU layer.
        rope_base: base of the rotary frequencies.
        norm_eps: of RMSNorm.
        use_qk_norm: normalise queries and keys per head (Qwen3).
        max_seq_len: longest document the model is meant for.
    """

    dim: int = 512
    depth: int = 8
    num_heads: int = 8
    num_kv_heads: int = 8
    head_dim: int = 0
    ffn_dim: int = 1408
    rope_base: float = 10_000.0
    norm_eps: float = 1e-6
    use_qk_norm: bool = True
    max_seq_len: int = 4096

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}"
            )
        if self.head_dim == 0 and self.dim % self.num_heads:
            raise ValueError(f"dim {self.dim} is not a multiple of num_heads {self.num_heads}")
        if self.head_width % 2:
            raise ValueError(f"heads of width {self.head_width} cannot be rotated: must be even")

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_dim or self.dim // self.num_heads


class RMSNorm(nn.Module):
    """Root-mean-square normalisation (Zhang and Sennrich, 2019), computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; in float32 where the weights are in another format."""
        x = x if x.dtype == self.weight.dtype else x.float()
        return functional.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)

    def add(self, x: Tensor, branch: Tensor | None, *, by_kernel: bool) -> tuple[Tensor, Tensor]:
        """Add a branch, if there is one, to the stream: the sum, and the sum normalised."""
        if branch is not None and by_kernel:
            return add_norm(x, branch, self.weight, self.eps)
        x = x if branch is None else x + branch
        return x, self(x)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions and optional QK-norm."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        width = config.head_width
        self.num_heads, self.num_kv_heads, self.width = config.num_heads, config.num_kv_heads, width
        self.q_proj = Linear(config.dim, config.num_heads * width)
        self.k_proj = Linear(config.dim, config.num_kv_heads * width)
        self.v_proj = Linear(config.dim, config.num_kv_heads * width)
        self.o_proj = Linear(config.num_heads * width, config.dim)
        self.q_norm = RMSNorm(width, config.norm_eps) if config.use_qk_norm else nn.Identity()
        self.k_norm = RMSNorm(width, config.norm_eps) if config.use_qk_norm else nn.Identity()
        self.is_joined = False  # one product for queries, keys and values in training

    def forward(
        self,
        x: Tensor,
        rope: tuple[Tensor, Tensor],
        visibility: Visibility,
        cache: tuple[int, CacheView] | None,
    ) -> Tensor:
        """Attend. ``x`` and the result are ``(B, n, D)``."""
        if visibility.spans is not None and visibility.sequence is None and cache is None:
            return self.o_proj(self._attend_joined(x, rope, visibility))
        num_rows, length, _ = x.shape
        query = self.q_proj(x).view(num_rows, length, self.num_heads, self.width)
        key = self.k_proj(x).view(num_rows, length, self.num_kv_heads, self.width)
        value = self.v_proj(x).view(num_rows, length, self.num_kv_heads, self.width).transpose(1, 2)
        query = apply_rope(self.q_norm(query).transpose(1, 2), *rope)  # (B, H, n, head_dim)
        key = apply_rope(self.k_norm(key).transpose(1, 2), *rope)  # (B, H_kv, n, head_dim)
        # Autocast on CUDA normalises in float32; the kernels want one number format.
        query, key = query.to(value.dtype), key.to(value.dtype)
        if cache is not None:
            layer, view = cache
            key, value = view.update(layer, key, value)  # (B, H_kv, S, head_dim)
            query = query.to(key.dtype)
        out = attend(query, key, value, visibility).transpose(1, 2)  # (B, n, H, head_dim)
        return self.o_proj(out.reshape(num_rows, length, -1).to(x.dtype))

    def _attend_joined(
        self, x: Tensor, rope: tuple[Tensor, Tensor], visibility: Visibility
    ) -> Tensor:
        """One product, and all between it and the next by our kernels, ``(B, n, H head_dim)``."""
        norms, eps = None, 0.0
        if isinstance(self.q_norm, RMSNorm) and isinstance(self.k_norm, RMSNorm):
            norms, eps = (self.q_norm.weight, self.k_norm.weight), self.q_norm.eps
        weights = (self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        return joined_attention(
            joined_product(x, weights, is_joined=self.is_joined),
            norms,
            rope,
            visibility.spans,
            num_heads=self.num_heads,
            width=self.width,
            eps=eps,
        )


class MLP(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.ffn_dim)
        self.up_proj = Linear(config.dim, config.ffn_dim)
        self.down_proj = Linear(config.ffn_dim, config.dim)
        self.is_joined = False  # one product for gate and up in training

    def forward(self, x: Tensor, *, by_kernel: bool = False) -> Tensor:
        """``(B, n, D)`` to ``(B, n, D)``; ``by_kernel`` where our kernels run."""
        if by_kernel:
            weights = (self.gate_proj.weight, self.up_proj.weight)
            joined = joined_product(x, weights, is_joined=self.is_joined)
            return self.down_proj(swiglu(joined))
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Pre-norm attention and feed-forward, each added to the stream.

    The feed-forward's result is added by whoever normalises the stream next, in the same pass.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.dim, config.norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        branch: Tensor | None,
        rope: tuple[Tensor, Tensor],
        visibility: Visibility,
        cache: tuple[int, CacheView] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The stream and what is to be added to it, ``(B, n, D)`` each, to the same behind it."""
        by_kernel = visibility.spans is not None
        x, seen = self.input_layernorm.add(x, branch, by_kernel=by_kernel)
        branch = self.self_attn(seen, rope, visibility, cache)
        x, seen = self.post_attention_layernorm.add(x, branch, by_kernel=by_kernel)
        return x, self.mlp(seen, by_kernel=by_kernel)


class Backbone(nn.Module):
    """The stack of decoder layers."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.depth))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.use_checkpointing = False
        self.sequence: SequenceGroup | None = None  # ranks that share packed rows
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal(0, 0.02), the two output projections of a layer scaled by depth (GPT-2)."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            is_output = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.02 / (2 * self.config.depth) ** 0.5 if is_output else 0.02
            nn.init.normal_(parameter, std=std)

    def lay_together(self) -> None:
        """Move matrices that read the same behind each other, for steps that take them as one."""
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            attention, mlp = layer.self_attn, layer.mlp
            lay_together((attention.q_proj, attention.k_proj, attention.v_proj))
            lay_together((mlp.gate_proj, mlp.up_proj))

    def join_products(self) -> None:
        """Train with one product for matrices that read the same, which live twice meanwhile."""
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            layer.self_attn.is_joined = layer.mlp.is_joined = True

    def forward(
        self,
        x: Tensor,
        position_ids: Tensor,
        visibility: Visibility | None = None,
        cache: CacheView | None = None,
    ) -> Tensor:
        """Turn embeddings into hidden states.

        Args:
            x: ``(B, n, D)``.
            position_ids: ``(B, n, 3)`` int64.
            visibility: who sees whom in a packed batch; with a cache, the cache's own unless given.
            cache: a view that this step's keys and values are appended to.

        Returns:
            ``(B, n, D)``, normalised.
        """
        if cache is not None:
            visibility = visibility or cache.visibility
        assert visibility is not None, "a forward needs a mask or a cache"
        shared = self.sequence if cache is None else None
        if shared is not None:
            x, position_ids = shared.split(x), shared.split(position_ids)
            visibility = replace(visibility, sequence=shared)
        rope = rope_cos_sin(position_ids, self.config.head_width, self.config.rope_base)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            # Else float32 embeddings would make the whole stream float32: twice the memory and the
            # time of all that lies between products.
            x = x.to(torch.get_autocast_dtype(kind))
        branch = torch.zeros_like(x)
        for i, layer in enumerate(self.layers):
            if self.use_checkpointing and torch.is_grad_enabled():
                given = (x + branch, None, rope, visibility)  # is kept: better one than two
                x, branch = checkpoint(  # nothing in a layer is random: no state to bring back
                    layer, *given, use_reentrant=False, preserve_rng_state=False
                )  # pyright: ignore
            else:
                x, branch = layer(x, branch, rope, visibility, cache and (i, cache))
        # ZeRO 3 leaves the weights of norms whole, so that none need be gathered by a hook.
        _, x = self.norm.add(x, branch, by_kernel=visibility.spans is not None)
        return x if shared is None else shared.gather(x)
