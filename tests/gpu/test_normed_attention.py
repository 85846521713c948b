"""A denoiser's attention by its kernel; TRITON_INTERPRET=1 runs it on a CPU."""

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from torch import Tensor
from torch.nn import functional

from unimm.nn import dit_blocks, normed_attention
from unimm.nn.dit_blocks import Attention

pytestmark = KERNEL_MARKS
EPS = 1e-6
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16
"""The interpreter's products take a bfloat16 for the integer of its bits."""
HALVES = sorted({HALF, torch.float16}, key=str)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def heads_of(
    batch: int, num_heads: int, places: int, width: int, *, parts: int, dtype: torch.dtype
) -> list[Tensor]:
    """``(B, H, n, W)`` each, cut out of what one product gave; no two places of like size."""
    whole = torch.randn(batch, places, parts, num_heads, width) * torch.rand(places, parts, 1, 1)
    return list(whole.to(DEVICE, dtype).permute(2, 0, 3, 1, 4))


def by_steps(heads: list[Tensor], weights: tuple[Tensor, Tensor]) -> Tensor:
    query, key = (
        functional.rms_norm(x, x.shape[-1:], weight, EPS)
        for x, weight in zip(heads[:2], weights, strict=True)
    )
    return dit_blocks.attend(query, key, heads[2])


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(
    ("num_heads", "width", "num_queries", "num_keys"),
    [(16, 72, 256, 256), (3, 20, 9, 9), (2, 16, 1, 130), (2, 64, 200, 64), (1, 80, 65, 63)],
)
def test_it_normalises_and_attends(num_heads, width, num_queries, num_keys, dtype):
    batch = 2
    query, _ = heads_of(batch, num_heads, num_queries, width, parts=2, dtype=dtype)
    key, value = heads_of(batch, num_heads, num_keys, width, parts=2, dtype=dtype)
    before = [x.clone() for x in (query, key, value)]
    weights = (
        (1 + torch.randn(width, device=DEVICE)).to(dtype),
        (1 + torch.randn(width, device=DEVICE)).to(dtype),
    )
    assert normed_attention.can_attend(query, key)
    found = normed_attention.normed_attention(query, key, value, weights, eps=EPS)
    exact = by_steps([x.double() for x in before], (weights[0].double(), weights[1].double()))
    eager = by_steps(before, weights)
    assert found.shape == exact.shape and found.dtype == dtype
    error, allowed = (float((x - exact).norm() / exact.norm()) for x in (found, eager))
    assert error <= (3 if IS_INTERPRETED else 1.2) * allowed, (error, allowed)
    for given, kept in zip((query, key, value), before, strict=True):
        assert torch.equal(given, kept)


def test_no_pictures_are_no_result():
    query, key, value = heads_of(0, 2, 4, 16, parts=3, dtype=HALF)
    weight = torch.ones(16, device=DEVICE, dtype=HALF)
    found = normed_attention.normed_attention(query, key, value, (weight, weight), eps=EPS)
    assert found.shape == (0, 4, 32)


@pytest.mark.parametrize("is_self", [True, False])
def test_attention_takes_it_for_few_keys_in_half_precision(is_self, monkeypatch):
    """Many keys, wide or narrow heads and float32 go another way, to the same result."""
    monkeypatch.setattr(dit_blocks, "can_fuse", lambda *_: True)
    calls, real = [], normed_attention.normed_attention
    monkeypatch.setattr(
        dit_blocks, "normed_attention", lambda *x, **eps: calls.append(x) or real(*x, **eps)
    )
    layer = Attention(96, 3).to(DEVICE, HALF).eval()
    x, other = (torch.randn(2, n, 96, device=DEVICE, dtype=HALF) for n in (9, 5))
    source = x if is_self else other
    found = layer(x, source)
    assert len(calls) == 1
    monkeypatch.setattr(normed_attention, "MOST_KEYS", 4)
    torch.testing.assert_close(layer(x, source), found, atol=2e-2, rtol=2e-2)
    monkeypatch.undo()
    torch.testing.assert_close(layer.train()(x, source), found, atol=2e-2, rtol=2e-2)
    assert len(calls) == 1
    for width, dtype in ((8, torch.bfloat16), (96, torch.bfloat16), (64, torch.float32)):
        head = torch.empty(1, 1, 4, width, dtype=dtype)
        assert not normed_attention.can_attend(head, head)
