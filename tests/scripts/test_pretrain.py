"""The pretraining script does what its YAML says, from the world to a model folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpora import tiny_tokenizers
from run_script import run_script

from unimm.config import load_config
from unimm.objectives import OBJECTIVES
from unimm.pipeline import load_pipeline
from unimm.training.config import TrainConfig
from unimm.training.resume import CHOICES

ROOT = Path(__file__).parents[2]


def run(*flags, script="train/pretrain.py"):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    return subprocess.run(
        [sys.executable, script, *map(str, flags)],
        cwd=ROOT,
        env=env | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize(
    "name",
    [
        "nano",
        pytest.param("nano_next_scale", marks=pytest.mark.long),
        pytest.param("nano_diffusion", marks=pytest.mark.long),
        pytest.param("nano_joint", marks=pytest.mark.long),
    ],
)
def test_nano_from_the_world_to_a_model(tmp_path, name):
    tiny_tokenizers(tmp_path)
    flags = {
        "run_dir": tmp_path / "run",
        "image_tokenizer": tmp_path / "image_tokenizer",
        "text_tokenizer": tmp_path,
        "data.world.cache_dir": tmp_path / "cache",
        "data.world.num_documents": 6,
        "data.world.num_held_out": 2,
        "data.world.image_size": 16,
        "data.row_length": 1024,
        "data.rows_per_step": 1,
        "model.backbone.dim": 32,
        "model.backbone.depth": 1,
        "model.backbone.num_heads": 2,
        "model.backbone.num_kv_heads": 2,
        "model.backbone.ffn_dim": 32,
        "model.backbone.max_seq_len": 4096,
        "logging.log_every": 1,
        "max_steps": 2,
    }
    words = [word for key, value in flags.items() for word in (f"--{key}", value)]
    place = {"nano_next_scale": 0, "nano_joint": 1}.get(name)
    if place is not None:
        words += [f"--model.objectives.{place}.scales", 1, 2, 4]
    done = run(f"train/configs/{name}.yaml", *words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "model written to" in done.stdout
    log = [json.loads(x) for x in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert log[0]["documents"] == 6 and log[-1]["step"] == 2
    assert "validation/text" in log[-1]
    assert {f"heldout/{head}" for head in OBJECTIVES} & log[-1].keys()
    assert load_pipeline(tmp_path / "run/model", device="cpu").image_size == 16
    assert (tmp_path / "run/samples/final.png").stat().st_size > 500
    encoded = sorted(
        path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors")
    )

    again = run(f"train/configs/{name}.yaml", *words)  # it is done: nothing is trained or encoded
    assert again.returncode == 0, again.stderr[-3000:]
    cached = sorted(path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.safetensors"))
    assert cached == encoded and len(encoded) == 3

    flags = ("--batch-sizes", 1, "--repeats", 1, "--device", "cpu", "--output", tmp_path)
    flags = (*flags, "--name", "drawing")
    done = run(tmp_path / "run/model", *flags, script="eval/benchmark_generation.py")
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / "drawing.json").read_text())["figures"]["drawing"]
    assert set(rows) <= OBJECTIVES.keys() and len(rows) == (5 if name == "nano_joint" else 1)
    assert all(row["pictures/s, batch 1"] > 0 and row["trunk steps"] > 0 for row in rows.values())


CONFIGS = sorted(
    path for path in (ROOT / "train/configs").rglob("*.yaml") if "\nrun_dir" in path.read_text()
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_is_a_whole_config_that_its_own_first_line_runs(path):
    config = load_config(TrainConfig, [str(path)], choices=CHOICES)
    assert config.model.objectives
    assert f"python train/pretrain.py {path.relative_to(ROOT)}" in path.read_text()
    if config.initial_model:  # a stage goes on from the one before
        before = Path(config.initial_model).parent.name
        assert (path.parent / f"{before}.yaml").is_file()
        old = load_config(TrainConfig, [str(path.parent / f"{before}.yaml")], choices=CHOICES)
        assert old.model.backbone == config.model.backbone
        assert path.parent.name != "staged" or old.model == config.model


def test_help_teaches():
    done = run("--help")
    assert done.returncode == 0
    assert "zero_stage" in done.stdout and "row_length" in done.stdout


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("optimiser", {"learning_rate": 1}, "unknown key 'optimiser'; did you mean 'optimizer'"),
        ("max_steps", "many", "'max_steps' must be int, got 'many'"),
        ("data", {"row_length": 64}, "data needs either 'train'"),
    ],
)
def test_a_bad_yaml_is_named(tmp_path, key, value, message):
    path = tmp_path / "bad.yaml"
    good = {"run_dir": "x", "image_tokenizer": "x", "text_tokenizer": "x", "data": {"train": "x"}}
    path.write_text(json.dumps(good | {key: value}))
    with pytest.raises(ValueError, match=message):
        load_config(TrainConfig, [str(path)], choices=CHOICES)


def test_the_loader_is_measured_for_every_objective(tmp_path, monkeypatch):
    script, size = "train/benchmark_loader.py", ("--num-documents", 12, "--rows", 1)
    flags = (*size, "--num-batches", 1, "--num-workers", 0, "--ledger", tmp_path)
    assert run_script(monkeypatch, script, *flags) == ""
    rates = json.loads((tmp_path / "loader.json").read_text(encoding="utf-8"))["figures"]["rates"]
    assert list(rates) == list(OBJECTIVES)
    assert all(value > 0 for row in rates.values() for value in row.values())
