"""One model learns several objectives, each document drawn with one of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import tiny_run
from helpers import packed, random_story, tiny_model, tiny_objective

from unimm.model import ModelConfig
from unimm.nn.transformer import BackboneConfig
from unimm.objectives import OBJECTIVES
from unimm.training.config import DataConfig
from unimm.training.loop import train
from unimm.training.prepare import prepare

SHARES = {"next_token": 1.0, "next_scale": 1.0, "masked": 4.0, "diffusion": 1.0, "transfusion": 1.0}


def joint_model() -> ModelConfig:
    return ModelConfig(
        backbone=BackboneConfig(dim=32, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=48),
        objectives=tuple(
            replace(tiny_objective(name), share=share) for name, share in SHARES.items()
        ),
    )


def test_all_objectives_learn_together_and_are_logged_apart(tmp_path):
    tiny_run(tmp_path)  # writes tokenizers and shards: all schedules and latents in one folder
    data = DataConfig(
        train=str(tmp_path / "train"),
        validation=str(tmp_path / "validation"),
        row_length=192,
        rows_per_step=8,
    )
    config = tiny_run(tmp_path, model=joint_model(), data=data, max_steps=40)
    train(config, draw=lambda *_: None, save=lambda *_: None)
    log = [json.loads(x) for x in (Path(config.run_dir) / "log.jsonl").read_text().splitlines()]
    for head in ("text", *OBJECTIVES):
        losses = [line[head] for line in log if head in line]
        assert len(losses) > 10, head
        assert sum(losses[-5:]) < sum(losses[:5]), head
    assert {f"validation/{head}" for head in OBJECTIVES} <= log[-1].keys()


def test_documents_are_shared_out_by_the_shares(tmp_path):
    config = tiny_run(tmp_path, model=joint_model(), num_documents=120)
    stream = prepare(config, micro_rows=4, device=torch.device("cpu")).stream
    heads = [head for row in stream.rows_of(0) for head in row.heads]
    assert len(heads) == 120
    assert heads.count("masked") / len(heads) == pytest.approx(0.5, abs=0.12)
    assert set(heads) == set(SHARES)


def test_pictures_weigh_as_much_as_with_one_objective():
    """The joint loss is the expectation over which objective draws a document."""
    alone, joint = tiny_model("masked"), tiny_model("masked")
    batch = packed(tiny_objective("masked"), [[random_story(0)]])
    joint.config = joint_model()
    losses = alone(batch)
    image = losses.sums["masked"] / losses.counts["masked"]
    text = losses.sums["text"] / losses.counts["text"]
    assert torch.allclose(losses.total, text + image)
    assert joint._weight("masked") == 0.5
    assert sum(joint._weight(head) for head in SHARES) == pytest.approx(1)
    with pytest.raises(ValueError, match="shares of objectives must be positive"):
        ModelConfig(objectives=(replace(tiny_objective("masked"), share=0.0),))
