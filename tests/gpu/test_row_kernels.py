"""Rows by index and their gradients by our kernels; TRITON_INTERPRET=1 runs them on a CPU."""

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS

from unimm.nn import rows

pytestmark = KERNEL_MARKS
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16  # interpreted, bfloat16 is read wrongly


@pytest.fixture(autouse=True)
def kernels_on_any_device(monkeypatch):
    monkeypatch.setattr(rows, "has_row_kernels", lambda _: True)


@pytest.mark.parametrize("sizes", [(3, 20), (0, 9), (7,), (5, 5, 5)])
def test_selected_rows_and_their_gradient(sizes):
    torch.manual_seed(0)
    x = torch.randn(30, 24).to(DEVICE, HALF).requires_grad_()
    indices = torch.randperm(30)[: sum(sizes)].to(DEVICE).split(sizes)
    found = rows.select_rows(x, indices)
    weights = [torch.randn(size, 24).to(DEVICE, HALF) for size in sizes]
    torch.autograd.backward(found, weights)
    expected = torch.zeros_like(x)
    for index, part, weight in zip(indices, found, weights, strict=True):
        assert torch.equal(part, x[index])
        expected[index] = weight
    assert x.grad is not None and torch.equal(x.grad, expected)


def test_rows_that_are_read_twice_add_up():
    x = torch.ones(4, 8, device=DEVICE, requires_grad=True)
    indices = (torch.tensor([0, 2], device=DEVICE), torch.tensor([2], device=DEVICE))
    torch.cat(rows.select_rows(x, indices)).sum().backward()
    assert x.grad is not None and x.grad[:, 0].tolist() == [1, 0, 2, 0]
