"""Train a detector, then measure it: two scripts, one after the other."""

import json
from pathlib import Path

import pytest
from pipelines import tiny_pipeline
from run_script import run_script

from unimm.judges.folder import load_detector


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detector(model, tmp_path_factory) -> Path:
    """A detector of 32 pixels after two steps, with its log."""
    folder = tmp_path_factory.mktemp("detector")
    with pytest.MonkeyPatch.context() as patch:
        error = run_script(
            patch,
            *("eval/train_detector.py", "eval/configs/detector.yaml", "--output", folder),
            *("--image_tokenizer", model / "image_tokenizer", "--detector.image_size", 32),
            *("--detector.channels", 8, 8, 8, 8, "--detector.hidden", 8, "--batch_size", 2),
            *("--num_batches", 1, "--num_workers", 0, "--ring_size", 1, "--max_steps", 2),
            *("--max_minutes", 5, "--device", "cpu"),
        )
    assert not error
    return folder


def test_train_detector(detector):
    assert load_detector(detector).config.channels == (8, 8, 8, 8)
    (line,) = (detector / "log.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 0 and json.loads(line)["loss"] > 0
    settings = json.loads((detector / "run.json").read_text())
    assert (settings["max_steps"], settings["seed"]) == (2, 7)  # of the flags, of the YAML


def test_calibrate_detector(detector, model, tmp_path, monkeypatch):
    error = run_script(
        monkeypatch,
        *("eval/calibrate_detector.py", "--detector", detector, "--ledger", tmp_path),
        *("--image_tokenizer", model / "image_tokenizer", "--num_scenes", 4),
        *("--styles", "noto", "--device", "cpu"),
    )
    assert not error
    table = json.loads((detector / "calibration.json").read_text())
    ledger = json.loads((tmp_path / "detector.json").read_text())
    assert ledger["figures"] == table and "--num_scenes 4" in ledger["command"]
    assert table["parameters"] == sum(p.numel() for p in load_detector(detector).parameters())
    assert {"noto, clean", "noto, after the image tokenizer"} <= set(table["atoms"])
    for counted in table["scenes"].values():
        assert sum(counted.values()) == 4


@pytest.mark.long
def test_audit_detector(tmp_path, monkeypatch):
    """The shipped detector: a parser of one style agrees with it on nearly all atoms."""
    error = run_script(
        monkeypatch,
        *("eval/audit_detector.py", "--num_scenes", 6, "--styles", "3d", "--sizes", 64),
        *("--ledger", tmp_path, "--device", "cpu"),
    )
    assert not error
    figures = json.loads((tmp_path / "parser.json").read_text())["figures"]
    assert figures["agreement"]["3d, 64 px"]["all atoms"] >= 0.9


@pytest.mark.long  # the parser knows all three styles here
def test_attack_detector(tmp_path, monkeypatch):
    error = run_script(
        monkeypatch,
        *("eval/attack_detector.py", "--num_pictures", 2, "--num_steps", 2, "--num_shown", 1),
        *("--ledger", tmp_path, "--picture", tmp_path / "attacks.webp", "--device", "cpu"),
    )
    assert not error
    assert (tmp_path / "attacks.webp").exists()
    for row in json.loads((tmp_path / "attacks.json").read_text())["figures"]["attacks"].values():
        assert row["pictures"] == 2 and row["parser fooled too"] <= row["detector fooled"] <= 2
