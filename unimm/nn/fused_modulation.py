"""What lies between a denoiser's products, in one pass each on a GPU; see ``modulation.py``.

PyTorch's kernels for a residual, its norm and its modulation read and write the whole stream some
twelve times; these read each input once and write each result once.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._triton import has_triton_package

from unimm.nn.kernel_blocks import cut_row, next_power

_WARP_NUMBERS = 512
"""Of a row that a warp holds: two reads of 16 bytes a thread, of each tensor, are under way."""


def can_fuse(x: Tensor, *others: Tensor | None) -> bool:
    """Whether our kernels can be used: inference in one format, on a GPU that Triton compiles for.

    Autocast would change formats on the way, and a compiler joins these steps by itself.
    """
    if not x.is_cuda or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return False
    is_same = all(other is None or other.dtype == x.dtype for other in others)
    is_plain = x.dtype != torch.float64 and not torch.is_autocast_enabled("cuda")
    return is_same and is_plain and has_triton_package()


def add_fused(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """``x + gate * branch``; shapes as in ``add_modulate_fused``."""
    return _run(x, branch, gate, None, None)[0]


def add_modulate_fused(
    x: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    *,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """Add a branch to the stream, normalise the sum without weights, shift and scale.

    Args:
        x: ``(B, n, D)``.
        branch: ``(B, n, D)``; None adds nothing.
        gate: ``(B, 1 or n, D)``, or None for 1.
        shift: ``(B, 1 or n, D)``.
        scale: as ``shift``; it is added to 1.
        eps: of the norm.

    Returns:
        The sum and the modulated, ``(B, n, D)`` each.
    """
    return _run(x, branch, gate, shift, scale, eps=eps)


def norm_heads_fused(*heads: tuple[Tensor, Tensor], eps: float) -> None:
    """RMSNorm of heads ``(B, H, n, W)``, written over them; numbers of a head lie together.

    Args:
        heads: with their weights ``(W,)``; one pair, or two whose heads are alike.
        eps: of the norm.
    """
    (query, query_weight), (key, key_weight) = heads[0], heads[-1]
    assert query.stride(-1) == key.stride(-1) == 1, (query.stride(), key.stride())
    assert query.shape == key.shape, (query.shape, key.shape)
    batch, num_heads, num_places, width = query.shape
    if query.numel():
        _kernels().norm_heads_kernel[(batch * num_places, len(heads))](
            *(query, key, query_weight, key_weight, num_places),
            *(x.stride(axis) for x in (query, key) for axis in (0, 2, 1)),
            eps,
            num_heads=num_heads,
            width=width,
            block_heads=next_power(num_heads),
            block_width=next_power(width),
            num_warps=1,  # on an H200 half the time of four: sums need no exchange
        )


def _run(
    x: Tensor,
    branch: Tensor | None,
    gate: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    batch, num_places, size = x.shape
    given = [x if part is None else part for part in (x, branch, gate, shift, scale)]
    # Rows may lie apart, as parts of what one product gave; what is one for all has a stride of 0.
    given = [part if part.stride(-1) == 1 else part.contiguous() for part in given]
    given = [part.expand(x.shape) for part in given]
    added = x if branch is None else x.new_empty(x.shape)
    seen = added if shift is None else x.new_empty(x.shape)
    if x.numel():
        _kernels().modulate_kernel[(batch * num_places,)](
            *(*given, added, seen),
            *(stride for part in given for stride in part.stride()[:2]),
            *(num_places, size, eps),
            has_branch=branch is not None,
            has_gate=gate is not None,
            has_norm=shift is not None,
            **cut_row(size, numbers_a_warp=_WARP_NUMBERS),
        )
    return added, seen


def _kernels() -> Any:
    """Where Triton is; a CPU has none."""
    from unimm.nn import modulation_kernels

    return modulation_kernels
