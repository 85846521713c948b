"""The trunk's cached steps on a GPU in few kernels; hidden states are those of its layers.

With few rows everything is read-once kernels of our own; with many the library multiplies, and
ours do what lies between. Legend as in ``transformer.py``; ``T`` is ``R n``, positions of a step.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from unimm.nn.adjacent import products
from unimm.nn.attention import attend
from unimm.nn.embeddings import kept
from unimm.nn.few_rows import FEW_ROWS, add_product, gate, overlap, project
from unimm.nn.kernel_blocks import cut_row
from unimm.nn.kv_cache import CacheView
from unimm.nn.transformer import Attention, Backbone, DecoderLayer, RMSNorm

LONGEST = 4096
"""Positions up to which one program attends for a head; longer rows want several."""

ROTATION = (1024, 1)
"""Numbers of heads that a program of the rotation has in hand at once, and its warps."""
_WARP_NUMBERS = 256
"""Of a row that a warp of a norm has: a read of 16 bytes a thread."""
ATTENTION = {"few": (16, 4), "many": (4, 1)}
"""Tiles of keys that a program asks for at once, and its warps, by number of rows."""


def can_fuse(backbone: Backbone, x: Tensor) -> bool:
    """Whether a step can run here: inference on a GPU that Triton compiles for."""
    config = backbone.config
    half = config.head_width // 2
    is_even = half & (half - 1) == 0 and config.dim % 16 == 0 and config.ffn_dim % 16 == 0
    is_same = x.dtype == backbone.norm.weight.dtype and x.dtype != torch.float64
    is_able = x.is_cuda and has_triton_package()
    return is_able and is_even and is_same and not torch.is_grad_enabled()


def run_fused(backbone: Backbone, x: Tensor, position_ids: Tensor, view: CacheView) -> Tensor:
    """Run a cached step.

    Args:
        backbone: for which ``can_fuse`` is true.
        x: ``(R, n, D)``.
        position_ids: ``(R, n, 3)`` int64.
        view: of neighbouring rows.

    Returns:
        ``(R, n, D)``, normalised.
    """
    shape = x.shape
    angles = _angles(position_ids, backbone.config.head_width, backbone.config.rope_base)
    stream = x.reshape(-1, shape[-1]).contiguous()  # (T, D)
    return _normalise(backbone.norm, run_layers(backbone, stream, angles, view)).view(shape)


def run_layers(
    backbone: Backbone, stream: Tensor, angles: tuple[Tensor, Tensor], view: CacheView
) -> Tensor:
    """All layers of a cached step.

    Args:
        backbone: for which ``can_fuse`` is true.
        stream: ``(T, D)``.
        angles: cosines and sines of the positions, ``(T, W / 2)`` each, float32.
        view: of neighbouring rows.

    Returns:
        ``(T, D)``, not normalised.
    """
    for index, layer in enumerate(backbone.layers):
        assert isinstance(layer, DecoderLayer)
        stream = _layer(layer, index, stream, angles, view)
    return stream


def _layer(
    layer: DecoderLayer, index: int, x: Tensor, angles: tuple[Tensor, Tensor], view: CacheView
) -> Tensor:
    """``(T, D)`` to ``(T, D)``."""
    is_few = len(x) <= FEW_ROWS
    attention, mlp = layer.self_attn, layer.mlp
    projected = _project(layer, x, is_few=is_few)
    if view.num_new == 1 and view.longest <= LONGEST:
        mixed = _attend_one(attention, index, projected, angles, view)
    else:
        mixed = _attend(attention, index, projected, angles, view)
    if is_few:
        x = add_product("output", x, mixed, attention.o_proj.weight)
        norm = layer.post_attention_layernorm
        hidden = gate(x, norm.weight, norm.eps, mlp.gate_proj.weight, mlp.up_proj.weight)
        return add_product("down", x, hidden, mlp.down_proj.weight)
    # In place, or the library copies the stream first; the first layer's is the caller's.
    weight = attention.o_proj.weight.t()
    x = x.addmm_(mixed, weight) if index else torch.addmm(x, mixed, weight)
    normed = _normalise(layer.post_attention_layernorm, x)
    left, right = products(normed, (mlp.gate_proj.weight, mlp.up_proj.weight))
    hidden = torch.empty_like(left, memory_format=torch.contiguous_format)
    _kernels().gated_kernel[(len(x), -(-hidden.shape[1] // 1024))](
        left, right, hidden, hidden.shape[1], left.stride(0), right.stride(0), block=1024
    )
    return x.addmm_(hidden, mlp.down_proj.weight.t())


def _normalise(norm: RMSNorm, x: Tensor) -> Tensor:
    """As the module, ``(T, D)``."""
    out, size = torch.empty_like(x), x.shape[1]
    _kernels().norm_kernel[(len(x),)](
        *(x, norm.weight, out, norm.eps),
        width=size,
        **cut_row(size, numbers_a_warp=_WARP_NUMBERS),
        **overlap(x),
    )
    return out


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import fused_kernels

    return fused_kernels


def _angles(position_ids: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """As ``rope_cos_sin``, ``(T, width / 2)`` each."""
    half, count = width // 2, position_ids.shape[0] * position_ids.shape[1]
    frequencies = frequencies_of(width, base, position_ids.device)
    cosines = torch.empty(count, half, device=position_ids.device)
    sines = torch.empty_like(cosines)
    _kernels().angles_kernel[(count,)](
        position_ids.contiguous(), frequencies, cosines, sines, half=half, block=half, num_warps=1
    )
    return cosines, sines


def frequencies_of(width: int, base: float, device: torch.device) -> Tensor:
    """Rotary frequencies ``(width / 2,)`` float32: four kernels that no step need repeat."""
    return kept(_frequencies, width, base, device)


def _frequencies(width: int, base: float, device: torch.device) -> Tensor:
    steps = torch.arange(width // 2, device=device, dtype=torch.float32)
    return base ** (-2.0 * steps / width)


Projected = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values ``(T, heads * W)``; the rows may lie apart."""


def _project(layer: DecoderLayer, x: Tensor, *, is_few: bool) -> Projected:
    norm, attention = layer.input_layernorm, layer.self_attn
    weights = [m.weight for m in (attention.q_proj, attention.k_proj, attention.v_proj)]
    if is_few:
        query, key, value = project(x, norm.weight, norm.eps, weights)
    else:
        query, key, value = products(_normalise(norm, x), weights)
    return query, key, value


def _attend_one(
    attention: Attention,
    index: int,
    projected: Projected,
    angles: tuple[Tensor, Tensor],
    view: CacheView,
) -> Tensor:
    """One new position a row, ``(R, H W)``."""
    query = projected[0]
    out = query.new_empty(query.shape)
    turns, num_warps = ATTENTION["few" if len(query) <= FEW_ROWS else "many"]
    vector = 16 // query.element_size()  # numbers that a thread reads of a position
    _kernels().attend_one_kernel[(len(query), attention.num_heads)](
        *_heads(attention, index, projected, angles, view, out),
        attention.width**-0.5,
        num_heads=attention.num_heads,
        group=attention.num_heads // attention.num_kv_heads,
        width=attention.width,
        has_norm=isinstance(attention.q_norm, RMSNorm),
        lanes=max(1, num_warps * 32 * vector // attention.width),
        turns=turns,
        num_warps=num_warps,
        **overlap(query),
    )
    return out


def _attend(
    attention: Attention,
    index: int,
    projected: Projected,
    angles: tuple[Tensor, Tensor],
    view: CacheView,
) -> Tensor:
    """Several new positions a row, ``(T, H W)``."""
    query = projected[0]
    num_rows, num_new = len(view.lengths), view.num_new
    rotated = query.new_empty(num_rows, num_new, attention.num_heads, attention.width)
    block = max(1, ROTATION[0] // attention.width)
    counts = [-(-len(query) * x // block) for x in (attention.num_heads, attention.num_kv_heads)]
    _kernels().store_rotated_kernel[(sum(counts),)](
        *_heads(attention, index, projected, angles, view, rotated),
        *(num_new, len(query), counts[0]),
        num_heads=attention.num_heads,
        num_kv_heads=attention.num_kv_heads,
        width=attention.width,
        has_norm=isinstance(attention.q_norm, RMSNorm),
        block=block,
        num_warps=ROTATION[1],
        **overlap(query),
    )
    # The result lies as the queries do: a position's heads follow each other, as is multiplied.
    out = attend(rotated.transpose(1, 2), *view.seen(index), view.visibility)
    return out.transpose(1, 2).reshape(len(query), -1)


def _heads(
    attention: Attention,
    index: int,
    projected: Projected,
    angles: tuple[Tensor, Tensor],
    view: CacheView,
    out: Tensor,
) -> tuple[Any, ...]:
    """What both kernels that rotate heads and append to the cache are given first."""
    keys, values = view.cache.keys[index], view.cache.values[index]
    return (
        *projected,
        *_norms(attention),
        *angles,
        view.lengths,
        keys,
        values,
        out,
        view.first_row,
        *(x.stride(0) for x in projected),
        keys.stride(0),
        keys.stride(1),
        _eps(attention),
    )


def _norms(attention: Attention) -> tuple[Tensor, Tensor]:
    if isinstance(attention.q_norm, RMSNorm) and isinstance(attention.k_norm, RMSNorm):
        return attention.q_norm.weight, attention.k_norm.weight
    return attention.q_proj.weight, attention.k_proj.weight  # not read


def _eps(attention: Attention) -> float:
    return attention.q_norm.eps if isinstance(attention.q_norm, RMSNorm) else 0.0
