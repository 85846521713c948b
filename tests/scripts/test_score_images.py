"""``eval/score_images.py`` as a person starts it: on a model, on other people's pictures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from pipelines import tiny_pipeline

ROOT = Path(__file__).parents[2]
SMALL = ("--num_prompts", "2", "--num_training_documents", "50", "--device", "cpu")


def run(*arguments: str, fails: bool = False) -> str:
    script, config = ROOT / "eval/score_images.py", ROOT / "eval/configs/images.yaml"
    command = [sys.executable, str(script), str(config), *SMALL, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode != 0) == fails, done.stderr[-2000:]
    return done.stderr if fails else done.stdout


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return str(folder)


def test_a_model_is_scored_and_a_broken_run_goes_on(model, tmp_path):
    output = tmp_path / "run"
    tasks = ("--tasks", "colors", "descriptive", "--splits", "heldout")
    arguments = ("--model", model, "--output", str(output), *tasks)
    told = run(*arguments, "--ledger", str(tmp_path))
    assert "drew 4 of 4 pictures" in told
    summary = json.loads((output / "summary.json").read_text())
    row = summary["splits"]["heldout"]["colors"]
    assert (row["prompts"], row["pictures"], row["failed"]) == (2, 2, 0)
    assert row["ceiling"]["value"] == 1 and row["nearest neighbour"]["value"] == 0
    assert json.loads((tmp_path / "worldeval.json").read_text())["figures"] == summary
    assert (output / "report.html").read_text().count("<img") == 3 * 4

    first = (output / "samples/00000/samples/00000.png").read_bytes()
    (output / "samples/00001/samples/00000.png").unlink()
    assert "drew 1 of 1 pictures" in run(*arguments)
    assert (output / "samples/00000/samples/00000.png").read_bytes() == first
    assert json.loads((output / "summary.json").read_text()) == summary

    refused = run(*arguments, "--sampling.temperature", "0.5", fails=True)
    assert "belongs to generator" in refused


def test_pictures_of_any_generator_are_scored(tmp_path):
    output = tmp_path / "run"
    arguments = ("--model", "none", "--output", str(output), "--tasks", "colors", "position")
    assert "no pictures yet" in run(*arguments)
    assert not (output / "summary.json").exists()
    prompts = [json.loads(x)["prompt"] for x in (output / "requests.jsonl").open()]
    folders = sorted((output / "samples").iterdir())
    assert [json.loads((x / "metadata.jsonl").read_text())["prompt"] for x in folders] == prompts
    donor = tmp_path / "donor.png"
    Image.new("RGB", (64, 64), "red").save(donor)
    shutil.copy(donor, folders[0] / "samples" / "00000.png")
    (folders[1] / "samples" / "00000.png").write_bytes(donor.read_bytes()[:60])
    run(*arguments)
    summary = json.loads((output / "summary.json").read_text())
    assert summary["failed"] == 7
    row = summary["splits"]["seen"]["colors"]
    assert row["failed"] == 1 and "ceiling after the tokenizer" not in row
    page = (output / "report.html").read_text()
    assert "7 failed" in page and "damaged" in page and "missing" in page


def test_captions_are_scored(model, tmp_path):
    script, config = ROOT / "eval/score_captions.py", ROOT / "eval/configs/captions.yaml"
    arguments = ("--model", model, "--num_pictures", "2", "--device", "cpu")
    folders = ("--output", str(tmp_path / "out"), "--ledger", str(tmp_path))
    command = [sys.executable, str(script), str(config), *arguments, *folders]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    ledger = json.loads((tmp_path / "captions.json").read_text())
    assert ledger["figures"] == json.loads((tmp_path / "out" / "summary.json").read_text())
