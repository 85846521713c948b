"""Rows by index and their gradients by our kernels; TRITON_INTERPRET=1 runs them on a CPU."""

import pytest
import torch
from helpers import packed, random_story, tiny_image_tokenizer, tiny_model, tiny_objective
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from torch.nn import functional

from unimm import model as models
from unimm.document import NULL_CODE, Document
from unimm.nn import rows
from unimm.objectives import OBJECTIVES

pytestmark = KERNEL_MARKS
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16  # interpreted, bfloat16 is read wrongly


@pytest.fixture(autouse=True)
def kernels_on_any_device(monkeypatch):
    monkeypatch.setattr(rows, "has_row_kernels", lambda _: True)
    monkeypatch.setattr(rows, "CHUNK", 8)


def gradients_of(ids, base, dtype, weight):
    torch.manual_seed(0)
    table = torch.randn(11, 40, device=DEVICE, requires_grad=True)
    x = torch.randn(len(ids), 40).to(DEVICE, dtype).requires_grad_() if base else None
    found = rows.add_rows(x, table, ids, dtype)
    found.backward(weight.to(DEVICE, dtype))
    return found, table, x


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("base", [True, False])
@pytest.mark.parametrize(
    "counts",
    [
        {-1: 5, 0: 1, 3: 2, 4: 30, 7: 1, 10: 20},  # runs over several programs
        {2: 8, 5: 16, 6: 8},  # that end where programs do
        {-1: 40},
        {9: 40},
        {-1: 8, 1: 3},
        {},
    ],
)
def test_rows_and_the_gradient_of_their_table(counts, base, dtype):
    torch.manual_seed(1)
    ids = torch.tensor([id for id, n in counts.items() for _ in range(n)], dtype=torch.int64)
    ids = ids[torch.randperm(len(ids))].to(DEVICE)
    weight = torch.randn(len(ids), 40)
    found, table, x = gradients_of(ids, base, dtype, weight)
    exact = table.detach().double().requires_grad_()
    expected = functional.embedding(ids.clamp(min=0), exact) * (ids >= 0)[:, None]
    expected = expected if x is None else expected + x.detach()
    assert found.dtype == dtype and table.grad is not None and table.grad.dtype == torch.float32
    torch.testing.assert_close(found, expected.to(dtype))
    given = weight.to(DEVICE, dtype)
    expected.backward(given.double())
    assert exact.grad is not None
    torch.testing.assert_close(table.grad, exact.grad.float())
    assert x is None or (x.grad is not None and torch.equal(x.grad, given))


def test_gradients_of_tables_repeat_to_the_bit():
    torch.manual_seed(1)
    ids = torch.randint(-1, 11, (300,), device=DEVICE)
    weight = torch.randn(300, 40)
    first, second = (gradients_of(ids, False, HALF, weight)[1].grad for _ in range(2))
    assert first is not None and second is not None and torch.equal(first, second)


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


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("has_pictures", [True, False])
def test_a_model_learns_the_same_with_and_without(objective, has_pictures, monkeypatch):
    stories = [random_story(i, index=i) for i in range(2)]
    documents = [
        story if has_pictures else Document(parts=story.parts[:1], index=story.index)
        for story in stories
    ]
    batch = packed(tiny_objective(objective), [documents[:1], documents[1:]]).to(DEVICE)
    batch.code_ids[batch.code_ids % 5 == 0] = NULL_CODE
    model = tiny_model(objective).to(DEVICE)
    model.bind(tiny_image_tokenizer().to(DEVICE))
    found = []
    for by_kernel in (True, False):
        monkeypatch.setattr(rows, "has_row_kernels", lambda _, by_kernel=by_kernel: by_kernel)
        monkeypatch.setattr(models, "has_row_kernels", rows.has_row_kernels)
        model.zero_grad()
        losses = model(batch, backend="dense")
        losses.total.backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append((losses.sums, gradients))
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
