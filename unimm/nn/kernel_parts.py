# pyright: basic, reportMissingImports=false, reportOperatorIssue=false
"""Pieces that Triton kernels of several files are made of; arithmetic is float32.

A head is held as its two halves, ``(heads, W / 2)`` each, which rotate against each other.
"""

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def take_over(has_pdl: tl.constexpr):
    """Let the next kernel begin to read its weights; wait for what the one before wrote."""
    if has_pdl:
        gdc_launch_dependents()
        gdc_wait()


@triton.jit
def normalise(x, gain, eps, size):
    """RMSNorm of a row of ``size`` numbers, zero behind them."""
    return x * tl.rsqrt(tl.sum(x * x, 0) / size + eps) * gain


@triton.jit
def gated(gate, up):
    """SwiGLU's ``silu(gate) * up``."""
    return gate * tl.sigmoid(gate) * up


@triton.jit
def inverse_root(x1, x2, eps, width: tl.constexpr):
    """What RMSNorm multiplies each head of ``width`` numbers with, ``(heads, 1)``."""
    return tl.rsqrt(tl.sum(x1 * x1 + x2 * x2, 1, keep_dims=True) / width + eps)


@triton.jit
def rotate_halves(x1, x2, cosine, sine):
    """Both halves of rotated heads; with the sines' other sign, of heads turned back."""
    return x1 * cosine - x2 * sine, x2 * cosine + x1 * sine
