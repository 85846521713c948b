"""Heads on a frozen trunk's states: what is kept is right, a better head scores better."""

import pytest
import torch
from corpora import encode_texts, write_shards
from pipelines import tiny_pipeline

from unimm.data.corpus import Corpus
from unimm.data.shards import ShardFolder
from unimm.diffusion.times import TimeConfig
from unimm.nn.denoiser import DenoiserConfig
from unimm.training.heads import (
    HeadBudget,
    cache_states,
    compare_heads,
    diffusion_batches,
    load_states,
    save_states,
)

BUDGET = HeadBudget(num_steps=60, batch_size=16, learning_rate=5e-3)


def batches_of(folder, pipeline):
    corpus = Corpus(ShardFolder(folder), encode_texts=encode_texts)
    return diffusion_batches(pipeline, corpus, row_length=256, micro_rows=2)


@pytest.fixture
def path(tmp_path):
    pipeline = tiny_pipeline("diffusion")
    folder = write_shards(tmp_path / "shards", num_documents=20, latent_dim=4)
    batches = batches_of(folder, pipeline)
    sets = {
        name: cache_states(pipeline, (batches[i] for i in range(100)), count=count)
        for name, count in (("train", 40), ("validation", 30))
    }
    save_states(sets, tmp_path / "states.safetensors")
    return tmp_path / "states.safetensors"


def test_states_are_what_the_objective_would_be_told(tmp_path, path):
    pipeline = tiny_pipeline("diffusion")
    batch = batches_of(tmp_path / "shards", pipeline)[0]
    slots = batch.slots["diffusion"]
    states = load_states(path, "train", torch.device("cpu"))
    assert states.told.shape == (40, 16, 32) and states.latents.shape == (40, 4, 4, 4)
    hidden, _, _ = pipeline.model.run_trunk(batch)
    told = hidden[slots.index].view(-1, 16, 32)
    torch.testing.assert_close(states.told[: len(told)].float(), told, atol=2e-3, rtol=1e-2)
    assert slots.tokens is not None and slots.tokens.latents is not None
    torch.testing.assert_close(  # an untrained tokenizer's statistics are 0 and 1
        states.latents[: len(told)].float(), slots.tokens.latents, atol=1e-3, rtol=1e-2
    )
    with pytest.raises(ValueError, match="pictures of 400"):
        cache_states(pipeline, iter([batch]), count=400)


def test_the_trunk_of_a_joint_model_is_read_as_one_that_only_denoises(tmp_path):
    """Every document is drawn by diffusion, and what the queries say does not change."""
    folder = write_shards(tmp_path, num_documents=20, latent_dim=4)
    joint, alone = tiny_pipeline("masked", "diffusion"), tiny_pipeline("diffusion")
    own = joint.model.state_dict()
    alone.model.load_state_dict({k: own[k] for k in alone.model.state_dict()})
    found, wanted = (
        cache_states(x, iter([batches_of(folder, x)[0]]), count=4) for x in (joint, alone)
    )
    torch.testing.assert_close(found.told, wanted.told)
    torch.testing.assert_close(found.latents, wanted.latents)


def test_heads_learn_and_the_same_budget_gives_the_same_figures(path):
    heads = {
        "zero": DenoiserConfig(dim=16, depth=1, num_heads=2),
        "again": DenoiserConfig(dim=16, depth=1, num_heads=2, patch_size=2),  # the trunk says 1
        "crosswise": DenoiserConfig(dim=16, depth=1, num_heads=2, conditioning="cross_attn"),
    }
    figures = compare_heads(path, heads, BUDGET, device=torch.device("cpu"), num_processes=0)
    assert figures["zero"]["loss"] == figures["again"]["loss"] != figures["crosswise"]["loss"]
    idle = HeadBudget(num_steps=1, learning_rate=0.0, times=TimeConfig())
    untrained = compare_heads(path, heads, idle, device=torch.device("cpu"), num_processes=0)
    # Untrained heads say 0: what is left is the velocity's own square.
    assert untrained["zero"]["loss"] == untrained["crosswise"]["loss"]
    assert figures["zero"]["loss"] < 0.8 * untrained["zero"]["loss"]
    assert 0 < figures["zero"]["standard_error"] < 0.2


def test_a_comparison_goes_on_where_it_was_broken_off(path, monkeypatch):
    small = DenoiserConfig(dim=16, depth=1, num_heads=2)
    budget = HeadBudget(num_steps=2, batch_size=4)
    cpu = torch.device("cpu")
    first = compare_heads(path, {"a": small}, budget, device=cpu, num_processes=0)

    trained = []

    def train(_path, head, _budget, _device):
        trained.append(head)
        return {"loss": 7.0}

    monkeypatch.setattr("unimm.training.heads.train_head", train)
    wide = DenoiserConfig(dim=32, depth=1, num_heads=2)
    found = compare_heads(path, {"b": wide, "a": small}, budget, device=cpu, num_processes=0)
    assert trained == [wide]  # the one that was missing
    assert found == {"b": {"loss": 7.0}, "a": first["a"]} and list(found) == ["b", "a"]
    # Other settings under an old name are trained anew.
    compare_heads(path, {"a": wide}, budget, device=cpu, num_processes=0)
    assert trained == [wide, wide]
