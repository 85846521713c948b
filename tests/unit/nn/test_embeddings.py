"""Inference keeps fixed embeddings where recordings read them, and no more than it may."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from unimm.nn import embeddings
from unimm.nn.embeddings import grid_sinusoid, sinusoid

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """None yet."""
    monkeypatch.setattr(embeddings, "_all_kept", {})


def grid(height=3, width=4, dim=8, dtype=torch.float32) -> torch.Tensor:
    return grid_sinusoid(height, width, dim, CPU, dtype)


def test_a_grid_tells_its_places_apart_by_row_and_column():
    found = grid()
    assert found.shape == (12, 8)
    rows, columns = found.view(3, 4, 2, 4).unbind(2)
    assert torch.equal(rows, rows[:, :1].expand(3, 4, 4))
    assert torch.equal(columns, columns[:1].expand(3, 4, 4))
    assert len(found.unique(dim=0)) == 12


def test_inference_keeps_what_training_makes_anew():
    expected = grid(), sinusoid(torch.rand(2))
    assert grid() is not expected[0] and not embeddings._all_kept
    with torch.inference_mode():
        found = grid()
    assert not found.is_inference() and torch.equal(found, expected[0])
    with torch.no_grad():
        sinusoid(torch.rand(2))
        assert grid() is found
        others = grid(4, 3), grid(dim=4), grid(dtype=torch.bfloat16)
    assert len(embeddings._all_kept) == 5
    assert [tuple(x.shape) for x in others] == [(12, 8), (12, 4), (12, 8)]
    assert not torch.equal(others[0], found) and others[2].dtype == torch.bfloat16
    assert grid() is not found  # gradients are on again


@torch.no_grad()
def test_what_is_kept_stays_and_what_finds_no_room_is_made_each_time(monkeypatch):
    first = grid()
    monkeypatch.setattr(embeddings, "MOST_KEPT_BYTES", first.nbytes)
    second = grid(4, 3)
    assert grid(4, 3) is not second and torch.equal(grid(4, 3), second)
    assert grid() is first


@torch.no_grad()
def test_fake_tensors_are_not_kept():
    with FakeTensorMode():
        grid()
    assert type(grid()) is torch.Tensor
