"""A run's model: frozen parts, and one reader of the weights for all ranks."""

import pytest
import torch
from corpora import tiny_run
from helpers import SPEC, SPECIAL, tiny_model

from unimm.training import build
from unimm.training.build import empty_model, first_model, freeze


def test_prefixes_freeze_whole_parts():
    model = tiny_model()
    freeze(model, ("backbone.layers.1", "code_embedding"))
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert "code_embedding.weight" in frozen and "backbone.layers.1.mlp.up_proj.weight" in frozen
    assert all(name.startswith(("backbone.layers.1.", "code_embedding.")) for name in frozen)


def test_a_prefix_that_names_nothing_is_an_error_with_near_names():
    with pytest.raises(
        ValueError, match=r"no parameters 'backbone.layer'; near: .*backbone.layers"
    ):
        freeze(tiny_model(), ("backbone.layer",))
    with pytest.raises(ValueError, match="leaves nothing to train"):
        freeze(tiny_model(), ("backbone", "text_embedding", "code_embedding", "objectives"))


def test_only_the_first_rank_reads_the_weights(tmp_path, monkeypatch):
    config = tiny_run(tmp_path, initial_model="somewhere")
    reads = []
    monkeypatch.setattr(build, "_start_from", lambda model, folder, hashes: reads.append(folder))
    for is_first in (True, False):
        monkeypatch.setattr(build, "is_main", lambda is_first=is_first: is_first)
        model = first_model(config, special=SPECIAL, spec=SPEC, tokenizer_hashes=("", ""))
        assert model.text_head.weight is model.text_embedding.weight
    assert reads == ["somewhere"]


def test_an_empty_model_has_the_same_parameters():
    model = tiny_model()
    empty = empty_model(model.config, special=model.special, spec=model.spec)
    wanted = {name: (p.shape, p.dtype) for name, p in model.named_parameters()}
    assert {name: (p.shape, p.dtype) for name, p in empty.named_parameters()} == wanted
    assert next(empty.parameters()).device == torch.device("cpu")
