# pyright: basic, reportMissingImports=false
"""Triton kernels of the cross-entropy: logits are read once for the loss and once for its gradient.

Arithmetic is float32, whatever the format of the logits. Legend: ``N`` positions, ``V`` vocabulary.
"""

import triton
import triton.language as tl

_LOWEST = tl.constexpr(-3.4e38)  # finite: a block of nothing but -inf leaves the sum at 0


@triton.jit
def losses_kernel(logits, labels, losses, sums, size: tl.constexpr, block: tl.constexpr):
    """Losses and log-sum-exps ``(N,)`` of ``logits (N, V)``; programs are ``(N,)``.

    The sum of exponentials is rescaled whenever a block holds a larger logit (Milakov and
    Gimelshein, 2018).
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * size
    most, total = tl.full((), _LOWEST, tl.float32), tl.full((), 0.0, tl.float32)
    for start in tl.range(0, size, block, num_stages=3):  # reads ahead
        at = start + tl.arange(0, block)
        x = tl.load(logits + at, mask=at < size, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(most, tl.max(x, 0))
        total = total * tl.exp(most - higher) + tl.sum(tl.exp(x - higher), 0)
        most = higher
    label = tl.load(labels + row)
    is_known = (label >= 0) & (label < size)
    chosen = tl.load(logits + label, mask=is_known, other=float("nan")).to(tl.float32)
    found = most + tl.log(total)
    tl.store(sums + row, found)
    tl.store(losses + row, found - chosen)


@triton.jit
def gradient_kernel(gradient, logits, labels, sums, found, size, block: tl.constexpr):
    """``gradient (softmax - one-hot)``, ``(N, V)``; programs are ``(N, blocks of V)``."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * block + tl.arange(0, block)
    is_in = at < size
    x = tl.load(logits + row * size + at, mask=is_in, other=0.0).to(tl.float32)
    share = tl.exp(x - tl.load(sums + row))
    share = tl.where(at == tl.load(labels + row), share - 1.0, share)
    share = (share * tl.load(gradient + row)).to(found.dtype.element_ty)
    tl.store(found + row * size + at, share, mask=is_in)
