"""The scripts of ``eval/`` that write and draw, as a person starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

from unimm.ledger import write_ledger

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


def worldeval(folder: Path, objective: str, score: str, requests: str = "a") -> str:
    """A ledger as ``score_images.py`` writes it; its name."""
    facts = {"generator": {"objective": objective}, "requests": {"hash": requests}}
    row = {"score": score, "ceiling": 0.9, "ceiling after the tokenizer": 0.8, "prompts": 4}
    figures = {"facts": facts, "table": {"colors, seen": row}}
    name = f"of_{objective}"
    write_ledger(name, command="python", seed=3, figures=figures, folder=folder, hardware="a GPU")
    return name


def test_ways_to_draw_stand_side_by_side(tmp_path):
    names = [worldeval(tmp_path, "masked", "0.7"), worldeval(tmp_path, "next_token", "0.5")]
    run("tabulate_ways.py", *names, "--folder", str(tmp_path))
    found = json.loads((tmp_path / "worldeval_ways.json").read_text())
    scores = {"masked": "0.7", "next_token": "0.5"}
    ceilings = {"ceiling": 0.9, "ceiling after the tokenizer": 0.8}
    assert found["figures"]["table"] == {"colors, seen": scores | ceilings}
    assert found["seed"] == 3 and found["hardware"] == "a GPU"
    worldeval(tmp_path, "next_token", "0.5", requests="b")
    with pytest.raises(AssertionError, match="different prompts"):
        run("tabulate_ways.py", *names, "--folder", str(tmp_path))
