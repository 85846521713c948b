"""Drawing by the kernel against the library's; TRITON_INTERPRET=1 runs it on a CPU with Triton."""

from typing import Any

import pytest
import torch
from kernel_device import DEVICE, KERNEL_MARKS

from unimm.nn.sampling import SamplingConfig, draw_by_kernel, guide, sample_from_logits

pytestmark = KERNEL_MARKS


@pytest.mark.parametrize("scales", [(), (3.0,), (3.0, 1.5)])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.7, top_k=9),
        SamplingConfig(top_p=0.6),
        SamplingConfig(temperature=1.3, top_k=40, top_p=0.9),
        SamplingConfig(top_k=1),
    ],
)
@pytest.mark.parametrize("size", [24, 300, 4096])
def test_the_same_tokens_are_drawn(scales, sampling, size):
    generator = torch.Generator().manual_seed(size)
    rows = 16
    logits = 2 * torch.randn((1 + len(scales)) * rows, size, generator=generator)
    uniform = torch.rand(rows, generator=generator)
    uniform[0], uniform[1] = 0.0, 1 - 2**-24  # the ends
    logits, uniform = logits.to(DEVICE), uniform.to(DEVICE)
    expected = sample_from_logits(guide(logits, scales), uniform, sampling)
    found = draw_by_kernel(logits, uniform, scales, sampling)
    # Sums of another order may move a draw that lies on the border of two tokens.
    assert (found != expected).sum() <= 1
    half = draw_by_kernel(logits.bfloat16(), uniform, scales, sampling)
    assert half.min() >= 0 and half.max() < size


def test_equally_likely_tokens_stay_together():
    logits = torch.tensor([[0.0, 1.0, 1.0, 1.0, -1.0]], device=DEVICE).expand(200, -1)
    uniform = torch.linspace(0, 0.999, 200, device=DEVICE)
    found = draw_by_kernel(logits, uniform, (), SamplingConfig(top_k=2))
    assert sorted(set(found.tolist())) == [1, 2, 3]


def kept_tokens(logits: torch.Tensor, config: SamplingConfig) -> torch.Tensor:
    """Which of ``logits (V,)`` may be drawn, ties with the last together, by sorting."""
    order = logits.argsort(descending=True)
    distance = (logits.max() - logits) / config.temperature
    kept = torch.ones_like(distance, dtype=torch.bool)
    if config.top_k:
        kept = distance <= distance[order[config.top_k - 1]]
    if config.top_p < 1:
        weights = torch.where(kept, (-distance).exp(), 0.0)[order].double()
        last = int((weights.cumsum(0) < config.top_p * weights.sum()).sum())
        kept = kept & (distance <= distance[order[last]])
    return kept


@pytest.mark.parametrize(
    "kind", ["normal", "tied", "one far off", "one ahead", "few finite", "all the same", "cliff"]
)
@pytest.mark.parametrize(
    "config",
    [
        SamplingConfig(top_k=100),
        SamplingConfig(top_k=1000, top_p=0.9, temperature=0.7),
        SamplingConfig(top_p=0.5),
    ],
)
def test_what_is_kept_is_what_sorting_keeps(kind, config):
    """Also where few tokens or many are equally likely, and where most lie in one place."""
    generator = torch.Generator().manual_seed(3)
    logits, draws = 2 * torch.randn(1100, generator=generator), 24
    if kind == "tied":
        logits = logits.mul(4).round().div(4)
    elif kind == "one far off":
        logits[7] = -1e30
    elif kind == "one ahead":
        logits[7] = 40.0
    elif kind == "few finite":
        logits[50:] = float("-inf")
    elif kind == "all the same":
        logits[:] = 1.5
    elif kind == "cliff":
        logits = -(2.0 ** torch.arange(1100).mul(0.1))
    uniform = torch.linspace(0, 1 - 2**-24, draws)
    kept = kept_tokens(logits, config) & logits.isfinite()
    weights = torch.where(kept, ((logits - logits.max()) / config.temperature).exp(), 0.0).double()
    cumulative = weights.cumsum(0)
    target = uniform.double() * cumulative[-1]
    expected = torch.searchsorted(cumulative, target, right=True).clamp(max=1099)
    rows = logits.expand(draws, -1).to(DEVICE)
    found = draw_by_kernel(rows, uniform.to(DEVICE), (), config).cpu()
    assert kept[found].all()
    assert (found != expected).sum() <= 1


@pytest.mark.parametrize("size", [24, 4096])
def test_tokens_drawn_in_turn_are_kept_in_their_places(size):
    generator = torch.Generator().manual_seed(size)
    sampling = SamplingConfig(top_k=20, guidance_scale=3.0)
    logits = torch.randn(3, 6, size, generator=generator).to(DEVICE)
    noise = torch.rand(3, 5, generator=generator).to(DEVICE)[:, 1:4]
    kept = torch.full((3, 4), -1, device=DEVICE)
    codes = kept[:, :3]
    for place in range(3):
        at = torch.tensor([place], device=DEVICE)
        options: dict[str, Any] = {"at": at, "kept": codes}
        found = draw_by_kernel(logits[place], noise, sampling.scales, sampling, **options)
        expected = draw_by_kernel(logits[place], noise[:, place], sampling.scales, sampling)
        assert torch.equal(found, expected) and torch.equal(codes[:, place], found)
    assert (kept[:, 3] == -1).all()
