"""The scripts of ``eval/`` that write and draw, as a person starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "eval" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder, precision="int8")
    return str(folder)


def test_write_stories(model, tmp_path):
    output = tmp_path / "out" / "story.html"
    told = run(
        "write_stories.py",
        *("--model", model, "--prompt", "mia", "--num-images", "2", "--seed", "3"),
        *("--output", str(output), "--device", "cpu"),
    )
    assert f"{output}: 2 pictures, seed 3" in told
    assert output.read_text().count("<img") == 2


def test_write_many_stories(model, tmp_path):
    run(
        "write_stories.py",
        *("--model", model, "--prompt", "mia", "--prompt", "she", "--num-images", "1"),
        *("--seed", "3", "--output", str(tmp_path / "s.json"), "--device", "cpu"),
    )
    stories = [json.loads((tmp_path / f"s_{i}.json").read_text()) for i in (1, 2)]
    assert [story["settings"]["seed"] for story in stories] == [3, 4]


def test_sample_images(model, tmp_path):
    output = tmp_path / "grid.png"
    run(
        "sample_images.py",
        *("--model", model, "--prompt", "mia", "--prompt", "she", "--num_samples", "3"),
        *("--output", str(output), "--device", "cpu"),
    )
    with Image.open(output) as grid:
        assert grid.size == (3 * 16 + 8, 2 * 16 + 4)
