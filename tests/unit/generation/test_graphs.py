"""Which cache the next call finds; what is recorded is tested on a GPU."""

import copy
import gc
import weakref
from functools import partial

import pytest
import torch
from pipelines import tiny_pipeline
from torch import nn

from unimm.generation import graphs
from unimm.generation.graphs import can_keep, keep_workspace, take_workspace
from unimm.nn.recorded import Recorder
from unimm.objectives.base import Chain


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(graphs, "_is_kept", lambda cache: True)  # as if it lay on a GPU
    return tiny_pipeline().model


def test_the_next_call_finds_the_cache_empty_and_in_its_place(model):
    first = take_workspace(model, num_rows=2, capacity=8)
    first.cache.keys.fill_(float("nan"))
    first.cache.advance([0, 1], [8, 3])
    keep_workspace(model, first)
    again = take_workspace(model, num_rows=2, capacity=8)
    assert again.graphs is first.graphs and again.cache is first.cache
    assert again.cache.lengths == [0, 0] and not again.cache.keys.any()
    assert take_workspace(model, num_rows=2, capacity=8).cache is not first.cache  # in use


def test_another_shape_or_moved_weights_take_a_new_one(model):
    for change in ("rows", "capacity", "inference", "weights"):
        first = take_workspace(model, num_rows=2, capacity=8)
        keep_workspace(model, first)
        if change == "weights":
            weight = next(model.backbone.parameters())
            weight.data = weight.data.clone()
        with torch.inference_mode(change == "inference"):
            other = take_workspace(
                model, num_rows=3 if change == "rows" else 2, capacity=8 + (change == "capacity")
            )
        assert other.cache is not first.cache, change


@pytest.mark.parametrize("exchanged", ["parameter", "module", "added", "head"])
def test_exchanged_weights_take_a_new_one(model, exchanged):
    first = take_workspace(model, num_rows=2, capacity=8)
    keep_workspace(model, first)
    layer = model.backbone.layers[1]
    if exchanged == "parameter":
        layer.mlp.up_proj.weight = nn.Parameter(layer.mlp.up_proj.weight.detach().clone())
    elif exchanged == "module":
        layer.mlp = copy.deepcopy(layer.mlp)
    elif exchanged == "added":
        layer.mlp.up_proj.register_parameter("scale", nn.Parameter(torch.ones(1)))
    else:
        head = model.objective("next_token").head
        head.weight.data = head.weight.data.clone()
    assert take_workspace(model, num_rows=2, capacity=8).cache is not first.cache


def test_a_kept_cache_keeps_no_model():
    model = tiny_pipeline().model
    keep_workspace(model, take_workspace(model, num_rows=2, capacity=8))
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_a_copied_model_records_for_itself():
    recorder = Recorder()
    recorder._seen.add("a")
    assert not copy.deepcopy(recorder)._seen


def test_a_model_in_training_keeps_no_cache(model):
    workspace = take_workspace(model.requires_grad_(False), num_rows=2, capacity=8)
    assert can_keep(workspace)
    model.objective("next_token").requires_grad_(True)  # also when training began meanwhile
    assert not can_keep(workspace)
    assert not can_keep(take_workspace(model, num_rows=2, capacity=8))


def plain_block(backbone, drawn, table, *, last, at, positions, view):
    x = table[drawn][:, None].repeat(len(last) // len(drawn), 1, 1)
    last.copy_(backbone(x, positions.index_select(1, at), cache=view)[:, 0])
    at.add_(1)
    view.lengths.add_(1)


@pytest.mark.parametrize("rows", [[0, 1], [0, 2]])
def test_a_chain_runs_all_its_blocks_across_the_end_of_a_bucket(model, rows, monkeypatch):
    """Of neighbours as one recording where a GPU's kernels would run, of others one by one."""
    monkeypatch.setattr(graphs, "BUCKET", 4)
    monkeypatch.setattr(graphs, "run_block", plain_block)
    kinds: list[int] = []
    link = graphs.StepGraphs._link

    def watched(self, kind, *given):
        kinds.append(kind.longest)
        link(self, kind, *given)

    monkeypatch.setattr(graphs.StepGraphs, "_link", watched)
    found = []
    for is_fused in (False, True):
        monkeypatch.setattr(graphs, "can_fuse", lambda *_, is_fused=is_fused: is_fused)
        steps = take_workspace(model, num_rows=3, capacity=12).graphs
        chain = Chain(
            last=torch.ones(2, model.config.backbone.dim),
            positions=torch.arange(7)[None, :, None].expand(1, -1, 3),
            follow=lambda last, at: (at + 3) % 8,
            embed=model.code_embedding,
            state=(),
            key=(),
        )
        kinds.clear()
        count: list[int] = []
        with torch.no_grad():
            last = steps.run_chain(
                rows, chain, chain.positions.expand(2, -1, -1), on_block=partial(count.append, 1)
            )
        assert len(count) == len(kinds) == 7
        assert [steps.cache.lengths[row] for row in rows] == [7, 7]
        one_kind = is_fused and rows == [0, 1]
        assert (len(set(kinds)) == 1) == one_kind and max(kinds) == (7 if rows == [0, 2] else 8)
        found.append(last)
    torch.testing.assert_close(*found)
