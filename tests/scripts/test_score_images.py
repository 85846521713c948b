"""The scripts of ``eval/`` that score single pictures and captions, as a person starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pipelines import tiny_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


def run(name: str, config: str, *arguments: str) -> None:
    script = [str(ROOT / "eval" / name), str(ROOT / "eval/configs" / config)]
    command = [sys.executable, *script, *arguments, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]


def test_pictures_are_scored(model, tmp_path):
    small = ("--num_prompts", "2", "--num_training_documents", "50", "--tasks", "colors")
    folders = ("--output", str(tmp_path / "out"), "--ledger", str(tmp_path), "--name", "mine")
    run("score_images.py", "images.yaml", "--model", model, *small, *folders)
    ledger = json.loads((tmp_path / "mine.json").read_text())
    assert ledger["figures"] == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (tmp_path / "out" / "report.html").is_file()


def test_captions_are_scored(model, tmp_path):
    folders = ("--output", str(tmp_path / "out"), "--ledger", str(tmp_path))
    run("score_captions.py", "captions.yaml", "--model", model, "--num_pictures", "2", *folders)
    ledger = json.loads((tmp_path / "captions.json").read_text())
    assert ledger["figures"] == json.loads((tmp_path / "out" / "summary.json").read_text())


@pytest.mark.long
def test_ceilings_of_image_tokenizers_are_scored(model, tmp_path):
    small = ("--num_prompts", "2", "--tasks", "colors", "--ledger", str(tmp_path))
    run("score_ceiling.py", "images.yaml", "--tokenizer", f"{model}/image_tokenizer", *small)
    ledger = json.loads((tmp_path / "tokenizer_ceilings.json").read_text())
    table = ledger["figures"]["ceilings"]
    schedules = tiny_pipeline().image_tokenizer.schedules
    assert list(table) == ["renders", *(f"{Path(model).name}, {name}" for name in schedules)]
    assert table["renders"].keys() == {"seen", "heldout"}
