"""From a tiny denoiser to its scores, its heads and its shipped folder, as a person starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from corpora import write_shards
from pipelines import tiny_pipeline

from unimm.nn.denoiser import DenoiserConfig
from unimm.pipeline import load_pipeline

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "denoiser"
    tiny_pipeline("diffusion").save_pretrained(folder)
    return folder


def test_scores_costs_and_swaps(model, tmp_path):
    pictures = {
        "model": model,
        "output": tmp_path / "run",
        "ledger": tmp_path,
        "num_prompts": 2,
        "num_training_documents": 20,
        "sweep_prompts": 2,
        "batch_size": 8,
        "device": "cpu",
    }
    flags = [word for key, value in pictures.items() for word in (f"--pictures.{key}", value)]
    run(
        *("eval/score_denoiser.py", "eval/configs/denoiser.yaml", *flags),
        *("--pictures.tasks", "colors", "--pictures.splits", "seen", "--steps", 2, 5),
        *("--num_swaps", 2, "--num_timed", 3),
    )
    ledger = json.loads((tmp_path / "denoiser.json").read_text())["figures"]
    branches = 1 if ledger["sampling"]["guidance_scale"] == 1 else 2
    few, many = ledger["steps"]["2 steps"], ledger["steps"]["5 steps"]
    assert (few["head evaluations"], many["head evaluations"]) == (2 * branches, 5 * branches)
    assert few["trunk steps"] == many["trunk steps"]
    assert few["pictures/s"] > 0 and few["seen mean"].startswith("0.0")
    assert ledger["colour swaps"]["pairs"] == 2
    assert len(ledger["sweep"]) == 5 and ledger["sampling"]["guidance_scale"] > 0


@pytest.mark.long
def test_heads_are_compared(model, tmp_path):
    for name in ("train", "validation"):
        write_shards(tmp_path / name, num_documents=20, latent_dim=4, seed=len(name))
    recipe = yaml.safe_load((ROOT / "train/configs/heads.yaml").read_text())
    assert len([DenoiserConfig(**head) for head in recipe["heads"].values()]) == 10
    heads = {name: {"dim": 16, "depth": 1, "num_heads": 2} for name in ("one", "two")}
    changed = {
        "model": str(model),
        "train": str(tmp_path / "train"),
        "validation": str(tmp_path / "validation"),
        "output": str(tmp_path / "heads"),
        "num_pictures": 30,
        "num_validation": 10,
        "row_length": 256,
        "budget": {"num_steps": 3, "batch_size": 4},
        "num_processes": 1,
        "heads": heads,
    }
    assert changed.keys() <= recipe.keys() | {"row_length"}
    (tmp_path / "heads.yaml").write_text(json.dumps(recipe | changed))
    told = run("train/compare_heads.py", tmp_path / "heads.yaml", "--ledger", tmp_path)
    assert "states of 30 pictures" in told
    figures = json.loads((tmp_path / "denoiser_heads.json").read_text())["figures"]["heads"]
    assert figures["one"]["loss"] == figures["two"]["loss"] > 0  # one seed, one head
    again = run("train/compare_heads.py", tmp_path / "heads.yaml")
    assert "states of" not in again  # the trunk ran once


def test_a_model_is_exported_beside_the_one_whose_tokenizer_it_shares(model, tmp_path):
    tiny_pipeline("next_token").save_pretrained(tmp_path / "first")
    shared = ("--shared-image-tokenizer", "../first/image_tokenizer")
    assert "MB" in run("train/export_model.py", model, tmp_path / "second", *shared)
    config = json.loads((tmp_path / "second/config.json").read_text())
    assert config["precision"] == "int8" and not (tmp_path / "second/image_tokenizer").exists()
    exact, small = (load_pipeline(x, device="cpu").model for x in (model, tmp_path / "second"))
    for name, weight in exact.state_dict().items():
        step = weight.abs().max() / 127
        assert (small.state_dict()[name] - weight).abs().max() <= step, name
