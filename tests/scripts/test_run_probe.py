"""Every probe through its script, at tiny sizes."""

import json
from pathlib import Path

import pytest
from diffusers_folders import KINDS, save_diffusers_folder
from labelled_folders import write_fashion_mnist
from PIL import Image
from pipelines import tiny_pipeline
from run_script import run_script

TINY_WORLD = ("--data.num_train", 96, "--data.num_validation", 16, "--data.num_test", 24)
SMALL = (*TINY_WORLD, "--data.num_workers", 0, "--data.image_size", 16, "--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline("diffusion").save_pretrained(folder)
    return folder


def run_probe(monkeypatch, name: str, model: Path, output: Path, *flags: object) -> dict:
    """The written results, and what the ledger says too."""
    error = run_script(
        monkeypatch,
        *("eval/run_probe.py", f"eval/configs/probes/{name}.yaml", "--model", model),
        *("--output", output, "--cache", output / "features", "--ledger", output / "ledger"),
        *flags,
    )
    assert not error
    results = json.loads((output / "results.json").read_text())
    (ledger,) = (output / "ledger").glob("*.json")
    assert json.loads(ledger.read_text())["figures"]["table"] == results["table"]
    return results


CLASSIFY = (
    *("--probe.timesteps", 0.05, 0.4, "--probe.grid.num_steps", 20, "--probe.linear.num_steps", 40),
    *("--probe.logistic.num_strengths", 2, "--probe.logistic.max_iterations", 5),
    *("--probe.supervised.num_steps", 3, "--probe.supervised.batch_size", 8),
)
CONTROLS = {"random network", "raw pixels", "supervised, same network", "chance"}


def test_classify(model, tmp_path, monkeypatch):
    results = run_probe(monkeypatch, "classify", model, tmp_path, *SMALL, *CLASSIFY)
    assert set(results["table"]) == {"features", "image tokenizer's encoder", *CONTROLS}
    assert set(results["table"]["features"]) >= {"linear", "kNN", "logistic", "layer", "timestep"}
    assert list(results["figures"]["grid"]["0"]) == ["0.05", "0.4"]
    assert Image.open(tmp_path / "grid.png").width > 200


def test_classify_fashion_mnist(model, tmp_path, monkeypatch):
    """Rows tell these classes apart, so pixels nearly suffice."""
    write_fashion_mnist(tmp_path / "fashion", num_train=400, num_test=40)
    results = run_probe(
        monkeypatch,
        *("classify_fashion", model, tmp_path, *SMALL[2:], "--data.num_train", 380),
        *("--data.folder", tmp_path / "fashion", *CLASSIFY),
    )
    assert results["table"]["raw pixels"]["logistic"] > 0.9
    assert results["table"]["chance"]["linear"] == 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_a_diffusers_folder_goes_through_the_same_command(kind, tmp_path, monkeypatch):
    folder = save_diffusers_folder(tmp_path / "model", kind)
    results = run_probe(monkeypatch, "classify", folder, tmp_path, *SMALL, *CLASSIFY)
    assert set(results["table"]) == {"features", *CONTROLS}
