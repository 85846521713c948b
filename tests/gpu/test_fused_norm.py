"""GroupNorm and SiLU by our kernels; TRITON_INTERPRET=1 runs them on a CPU that has Triton."""

import os

import pytest
import torch
from torch.nn import functional

from unimm.tokenizer.fused_norm import run_kernels

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not IS_INTERPRETED and not torch.cuda.is_available(), reason="needs a CUDA device"
    ),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("batch", "channels", "side"), [(1, 16, 2), (2, 160, 5), (3, 64, 16), (40, 32, 9)]
)
def test_norm_and_silu_are_pytorchs(dtype, batch, channels, side):
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(16, channels).to(DEVICE).requires_grad_(False)
    norm.weight.add_(torch.randn_like(norm.weight))
    norm.bias.add_(torch.randn_like(norm.bias))
    x = 3 * torch.randn(batch, channels, side, side, device=DEVICE) + 1
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    found = run_kernels(x, norm)
    expected = functional.silu(norm(x.float()))
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)
