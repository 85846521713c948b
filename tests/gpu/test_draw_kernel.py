"""Drawing by the kernel against the library's; TRITON_INTERPRET=1 runs it on a CPU with Triton."""

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
    rows = 64
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
