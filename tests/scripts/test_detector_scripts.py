"""Train a detector, measure it, and let it judge stories: three scripts, one after the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

from unimm.judges.folder import load_detector

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"eval/{script}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(model, tmp_path_factory) -> Path:
    """A detector of 32 pixels after two steps, with its log."""
    folder = tmp_path_factory.mktemp("detector")
    done = run(
        *("train_detector.py", "eval/configs/detector.yaml", "--output", folder),
        *("--image_tokenizer", model / "image_tokenizer", "--detector.image_size", 32),
        *("--detector.channels", 8, 8, 8, 8, "--detector.hidden", 8, "--batch_size", 2),
        *("--num_batches", 1, "--num_workers", 0, "--ring_size", 1, "--max_steps", 2),
        *("--max_minutes", 5, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"calibrate_detector.py --detector {folder}" in done.stdout
    return folder


def test_train_detector(detector):
    assert load_detector(detector).config.channels == (8, 8, 8, 8)
    (line,) = (detector / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 0 and json.loads(line)["loss"] > 0
    settings = json.loads((detector / "run.json").read_text())
    assert (settings["max_steps"], settings["seed"]) == (2, 7)  # of the flags, of the YAML


def test_calibrate_detector(detector, model, tmp_path):
    done = run(
        *("calibrate_detector.py", "--detector", detector, "--ledger", tmp_path),
        *("--image_tokenizer", model / "image_tokenizer", "--num_scenes", 4),
        *("--styles", "noto", "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    table = json.loads((detector / "calibration.json").read_text())
    ledger = json.loads((tmp_path / "detector.json").read_text())
    assert ledger["figures"] == table and "--num_scenes 4" in ledger["command"]
    assert table["parameters"] == sum(p.numel() for p in load_detector(detector).parameters())
    assert {"noto, clean", "noto, after the image tokenizer"} <= set(table["atoms"])
    for counted in table["scenes"].values():
        assert sum(counted.values()) == 4


def test_score_stories(detector, model, tmp_path):
    output = tmp_path / "scores"
    done = run(
        *("score_stories.py", "eval/configs/stories.yaml", "--model", model),
        *("--detector", detector, "--output", output, "--ledger", tmp_path, "--sets", "words"),
        *("--splits", "heldout", "--num_stories", 2, "--batch_size", 2, "--device", "cpu"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "heldout words" in done.stdout
    figures = json.loads((output / "summary.json").read_text())
    assert json.loads((tmp_path / "stories.json").read_text())["figures"] == figures
    row = figures["heldout words"]
    assert {"scores", "ceiling", "ceiling after the tokenizer", "chance"} <= set(row)
    assert row["stories"] == 2
    with Image.open(output / "heldout_words.png") as grid:
        assert grid.width > grid.height / 2
