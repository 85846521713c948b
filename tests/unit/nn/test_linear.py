"""Products of few rows on a CPU give what any other product gives."""

import pytest
import torch
from torch.nn import functional

from unimm.checkpoint.weights import keep_int8, to_int8
from unimm.nn.linear import FEW_INT8_ROWS, Linear, has_int8_kernel

ROWS = (1, 2, 3, 4, 20)
needs_kernel = pytest.mark.skipif(not has_int8_kernel(), reason="no int8 kernel for this CPU")


def kept(dim: int = 64, out: int = 96) -> Linear:
    """A layer whose weight int8 holds exactly."""
    torch.manual_seed(0)
    layer = Linear(dim, out)
    codes, scales = to_int8(layer.weight.detach())
    layer.requires_grad_(False).weight.copy_(codes * scales.float()[:, None])
    return layer


@pytest.mark.parametrize("rows", [*ROWS, 0])
def test_float32_products_and_gradients_are_those_of_any_linear_layer(rows):
    torch.manual_seed(1)
    layer = Linear(64, 96)
    x = torch.randn(rows, 1, 64, requires_grad=True)
    found, expected = layer(x), functional.linear(x, layer.weight)
    assert found.shape == expected.shape and found.is_contiguous()
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected.square().sum(), (x, layer.weight))
    torch.testing.assert_close(torch.autograd.grad(found.square().sum(), (x, layer.weight)), wanted)


@needs_kernel
@pytest.mark.parametrize("rows", ROWS)
def test_int8_rounds_the_activations_alone(rows):
    layer = kept()
    x = torch.randn(rows, 1, 64)
    expected = functional.linear(x.bfloat16().float(), layer.weight)
    keep_int8(layer)
    with torch.inference_mode():
        found = layer(x)
    if rows > FEW_INT8_ROWS:  # many rows are multiplied as float32, nothing rounded
        torch.testing.assert_close(found, functional.linear(x, layer.weight))
        return
    # The result is rounded to bfloat16 once: half a step of 2**-8.
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=1e-5)
    assert not torch.equal(found, functional.linear(x, layer.weight))


@needs_kernel
def test_int8_is_left_as_soon_as_the_weight_is_another():
    layer, x = kept(), torch.ones(2, 64)
    keep_int8(layer)
    assert layer.is_int8
    layer.weight.add_(1.0)
    assert not layer.is_int8
    with torch.no_grad():
        torch.testing.assert_close(layer(x), functional.linear(x, layer.weight))
    keep_int8(layer)  # int8 cannot hold this matrix
    assert not layer.is_int8
    layer = kept()
    keep_int8(layer)
    assert not layer.double().is_int8
    layer(x.double())


@needs_kernel
def test_int8_is_no_part_of_the_state_and_trains_in_float32():
    layer, x = kept(), torch.ones(2, 64)
    keep_int8(layer)
    assert [*layer.state_dict()] == ["weight"]
    layer.requires_grad_(True)
    layer(x).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer(x), functional.linear(x, layer.weight))
