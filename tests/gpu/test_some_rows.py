"""Products of some dozens of rows against torch's.

TRITON_INTERPRET=1 runs them on a CPU where Triton is installed, in float16: its bfloat16 products
are not what a GPU's are.
"""

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS

from unimm.nn import some_rows
from unimm.nn.adjacent import lay_together
from unimm.nn.transformer import RMSNorm

pytestmark = KERNEL_MARKS
DTYPES = [torch.float16] if IS_INTERPRETED else [torch.float16, torch.bfloat16]
SHAPES = [(5, 64, 48), (17, 176, 64), (100, 192, 200), (128, 1040, 80)]


def numbers(dtype, *shape):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(DEVICE, dtype)


def error_of(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "num_in", "num_out"), SHAPES)
def test_products_are_those_of_torch(dtype, rows, num_in, num_out):
    x, weight = numbers(dtype, rows, num_in), numbers(dtype, num_out, num_in)
    expected = x.double() @ weight.double().t()
    parts = some_rows.multiply_parts(x, weight)
    assert parts.dtype == torch.float32 and parts.shape[1:] == expected.shape
    assert (len(parts) > 1) == (num_in > 128)
    assert error_of(parts.sum(0), expected) < 1e-6
    (whole,) = some_rows.multiply(x, [weight])
    assert whole.dtype == dtype and error_of(whole, expected) < 4e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("are_together", [False, True])
def test_matrices_that_lie_together_are_one_product(dtype, are_together):
    layers = [torch.nn.Linear(64, n, bias=False, device=DEVICE, dtype=dtype) for n in (48, 16, 80)]
    for layer in layers:
        layer.requires_grad_(False)
    if are_together:
        lay_together(layers)
    x = numbers(dtype, 9, 64)
    found = some_rows.multiply(x, [layer.weight for layer in layers])
    for got, layer in zip(found, layers, strict=True):
        assert error_of(got, x.double() @ layer.weight.double().t()) < 4e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "num_in", "num_out"), SHAPES)
def test_gates_are_those_of_torch(dtype, rows, num_in, num_out):
    x = 0.1 * numbers(dtype, rows, num_in)
    gate, up = numbers(dtype, num_out, num_in), numbers(dtype, num_out, num_in + 1)[:, 1:]
    up = up.contiguous()
    left, right = x.double() @ gate.double().t(), x.double() @ up.double().t()
    expected = torch.nn.functional.silu(left) * right
    assert error_of(some_rows.multiply_gated(x, gate, up), expected) < 4e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_parts", [1, 3])
@pytest.mark.parametrize("has_norm", [False, True])
def test_parts_are_added_to_the_stream(dtype, num_parts, has_norm):
    x, parts = numbers(dtype, 6, 80), numbers(torch.float32, num_parts, 6, 80)
    norm = RMSNorm(80, 1e-5).to(DEVICE, dtype).requires_grad_(False)
    norm.weight.copy_(numbers(dtype, 80))
    given = x.clone()
    added, normed = some_rows.add_parts(x, parts, norm if has_norm else None)
    assert torch.equal(x, given)
    expected = x.double() + parts.double().sum(0)
    assert error_of(added, expected) < 4e-3
    expected = norm.double()(added.double()) if has_norm else added.double()
    assert error_of(normed, expected) < 4e-3
