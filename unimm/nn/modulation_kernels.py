# pyright: basic, reportMissingImports=false
"""Triton kernels of a denoiser: residual, norm and modulation in one pass, and norms of heads.

Arithmetic is float32. Legend as in ``dit_blocks.py``; ``H`` heads, ``W`` width of a head.
"""

import triton
import triton.language as tl


@triton.jit
def load_row(x, picture, place, picture_stride, place_stride, at, is_in):
    """A place's numbers of ``(B, n, D)``, float32; a stride of 0 is one for all."""
    row = x + picture * picture_stride + place * place_stride
    return tl.load(row + at, mask=is_in, other=0.0).to(tl.float32)


@triton.jit
def modulate_kernel(
    x, branch, gate, shift, scale, added, seen,
    x_picture, x_place, branch_picture, branch_place, gate_picture, gate_place,
    shift_picture, shift_place, scale_picture, scale_place,
    num_places, size, eps,
    has_branch: tl.constexpr, has_gate: tl.constexpr, has_norm: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """``added = x + gate branch``; ``seen = norm(added) (1 + scale) + shift``; a program a place.

    Only what there is is read and written.
    """
    row = tl.program_id(0).to(tl.int64)
    picture, place = row // num_places, row % num_places
    at = tl.arange(0, block)
    is_in = at < size
    found = load_row(x, picture, place, x_picture, x_place, at, is_in)
    dtype = seen.dtype.element_ty
    if has_branch:
        more = load_row(branch, picture, place, branch_picture, branch_place, at, is_in)
        if has_gate:
            more *= load_row(gate, picture, place, gate_picture, gate_place, at, is_in)
        rounded = (found + more).to(dtype)
        tl.store(added + row * size + at, rounded, mask=is_in)
        found = rounded.to(tl.float32)
    if has_norm:
        centred = tl.where(is_in, found - tl.sum(found, 0) / size, 0.0)
        normed = centred * tl.rsqrt(tl.sum(centred * centred, 0) / size + eps)
        factor = load_row(scale, picture, place, scale_picture, scale_place, at, is_in)
        term = load_row(shift, picture, place, shift_picture, shift_place, at, is_in)
        tl.store(seen + row * size + at, (normed * (1 + factor) + term).to(dtype), mask=is_in)


@triton.jit
def norm_heads_kernel(
    query, key, query_weight, key_weight, num_places,
    query_picture, query_place, query_head, key_picture, key_place, key_head, eps,
    num_heads: tl.constexpr, width: tl.constexpr,
    block_heads: tl.constexpr, block_width: tl.constexpr,
):  # fmt: skip
    """RMSNorm of each head of ``(B, n, H, W)`` where it lies; programs are ``(B n, 1 or 2)``.

    The first of two normalises queries, the second keys.
    """
    row, is_key = tl.program_id(0).to(tl.int64), tl.program_id(1) == 1
    picture, place = row // num_places, row % num_places
    head, at = tl.arange(0, block_heads)[:, None], tl.arange(0, block_width)[None, :]
    is_in = (head < num_heads) & (at < width)
    if is_key:
        places = key + picture * key_picture + place * key_place + head * key_head + at
        gains = key_weight + at
    else:
        places = query + picture * query_picture + place * query_place + head * query_head + at
        gains = query_weight + at
    x = tl.load(places, mask=is_in, other=0.0).to(tl.float32)
    gain = tl.load(gains, mask=at < width, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 1, keep_dims=True) / width + eps)
    tl.store(places, (x * scale * gain).to(query.dtype.element_ty), mask=is_in)
