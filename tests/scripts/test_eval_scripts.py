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


def test_sample_images(model, tmp_path):
    output = tmp_path / "grid.png"
    run(
        "sample_images.py",
        *("--model", model, "--prompt", "mia", "--prompt", "she", "--num_samples", "3"),
        *("--output", str(output), "--device", "cpu"),
    )
    with Image.open(output) as grid:
        assert grid.size == (3 * 16 + 8, 2 * 16 + 4)


def test_benchmark_generation(model, tmp_path):
    run(
        "benchmark_generation.py",
        *(model, "--sizes", "nano", "--batch-sizes", "1", "2", "--context", "0", "1"),
        *("--repeats", "1", "--launches", "--device", "cpu", "--output", str(tmp_path)),
    )
    figures = json.loads((tmp_path / "generation.json").read_text())["figures"]
    assert set(figures["drawing"]) == {"next_token", "nano"}
    assert len(figures["batches"]) == 4 and len(figures["context"]) == 4
    assert all(0 < row["roofline share"] < 1 for row in figures["batches"].values())
    assert (tmp_path / "generation_batches.svg").is_file()
    assert (tmp_path / "generation_context.svg").is_file()
