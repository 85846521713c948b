"""Every probe through its script, at tiny sizes."""

import json
from pathlib import Path

import pytest
from diffusers_folders import save_diffusers_folder
from labelled_folders import write_fashion_mnist, write_stereo_photo
from PIL import Image
from pipelines import tiny_pipeline
from run_script import run_script

from unimm.config import load_config
from unimm.data.labelled.registry import LABELLED_SETS
from unimm.data.labelled.sets import LabelledConfig
from unimm.probes.probe import ProbeConfig
from unimm.probes.registry import PROBES
from unimm.probes.run import ProbeRunConfig

ROOT = Path(__file__).parents[2]
CHOICES = {ProbeConfig: PROBES, LabelledConfig: LABELLED_SETS}

SIZE = ("--data.image_size", 16, "--device", "cpu")
WORLD = (*SIZE, "--data.num_workers", 0, "--data.num_train", 24, "--data.num_validation", 8)
WORLD = (*WORLD, "--data.num_test", 8)
FASHION = (*SIZE, "--data.num_train", 380, "--data.num_validation", 20, "--data.num_test", 40)


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
    *("--probe.grid.learning_rates", 1e-2, "--probe.linear.learning_rates", 1e-2, 1e-1),
    *("--probe.logistic.num_strengths", 2, "--probe.logistic.max_iterations", 5),
    *("--probe.supervised.num_steps", 2, "--probe.supervised.batch_size", 8),
)
CONTROLS = {"random network", "raw pixels", "supervised, same network", "chance"}


@pytest.mark.long
def test_classify(model, tmp_path, monkeypatch):
    results = run_probe(monkeypatch, "classify", model, tmp_path, *WORLD, *CLASSIFY)
    assert set(results["table"]) == {"features", "image tokenizer's encoder", *CONTROLS}
    assert set(results["table"]["features"]) >= {"linear", "kNN", "logistic", "layer", "timestep"}
    assert list(results["figures"]["grid"]["0"]) == ["0.05", "0.4"]
    assert Image.open(tmp_path / "grid.png").width > 200


def test_classify_fashion_mnist(model, tmp_path, monkeypatch):
    """Rows tell these classes apart, so pixels nearly suffice."""
    folder = write_fashion_mnist(tmp_path / "fashion", num_train=400, num_test=40)
    flags = (*FASHION, "--data.folder", folder, *CLASSIFY)
    results = run_probe(monkeypatch, "classify_fashion", model, tmp_path, *flags)
    assert results["table"]["raw pixels"]["logistic"] > 0.9
    assert results["table"]["chance"]["linear"] == 0.1


@pytest.mark.parametrize("kind", ["unet", "sd3", pytest.param("dit", marks=pytest.mark.long)])
def test_a_diffusers_folder_goes_through_the_same_command(kind, tmp_path, monkeypatch):
    folder = save_diffusers_folder(tmp_path / "model", kind)
    data = write_fashion_mnist(tmp_path / "fashion", num_train=40, num_test=10)
    flags = (*SIZE, "--data.folder", data, "--data.num_train", 30, "--data.num_validation", 10)
    results = run_probe(monkeypatch, "classify_fashion", folder, tmp_path, *flags, *CLASSIFY)
    assert set(results["table"]) == {"features", *CONTROLS}


@pytest.mark.parametrize("head", [pytest.param("depth", marks=pytest.mark.long), "depth_dpt"])
def test_depth(head, model, tmp_path, monkeypatch):
    results = run_probe(
        monkeypatch,
        *(head, model, tmp_path, *WORLD, "--probe.timesteps", 0.05, 0.3, "--probe.num_noises", 1),
        *("--probe.train.num_steps", 4, "--probe.train.batch_size", 8, "--probe.num_bins", 16),
        *("--probe.supervised.num_steps", 2, "--probe.supervised.batch_size", 8),
        *("--probe.choice.num_steps", 2, "--probe.choice.batch_size", 8, "--probe.num_joined", 2),
        *("--probe.head.width", 16, "--probe.layers", 0, 1, "--cache", ""),
    )
    assert results["figures"]["timesteps"] == [0.05, 0.3]
    assert set(results["figures"]["beaten"]) == {*results["table"]} - {
        *("features", "supervised, same network"),
    }
    controls = {"random network", "raw pixels", "supervised, same network", "mean depth map"}
    assert set(results["table"]) == {
        *("features", "image tokenizer's encoder", "constant depth"),
        *controls,
    }
    assert set(results["figures"]["AbsRel by timestep"]) == {"0.05", "0.3"}
    assert Image.open(tmp_path / "depth.png").height > 200


@pytest.mark.long
def test_depth_on_a_photo(model, tmp_path, monkeypatch):
    folder = write_stereo_photo(tmp_path / "photo")
    results = run_probe(
        monkeypatch,
        *("depth_photo", model, tmp_path, *WORLD, "--data.folder", folder, "--data.num_test", 2),
        *("--probe.timesteps", 0.1, "--probe.num_noises", 1, "--probe.train.num_steps", 2),
        *("--probe.choice.num_steps", 2, "--probe.choice.batch_size", 4, "--probe.layers", 0, 1),
        *("--probe.train.batch_size", 4, "--probe.num_bins", 16, "--probe.head.width", 16),
        *("--probe.supervised.num_steps", 2, "--probe.supervised.batch_size", 8),
    )
    assert results["facts"]["data"].startswith("a stereo photo")
    assert results["figures"]["test pictures"] == 2


def test_every_probe_has_settings_that_load():
    """The settings that ship, each with a probe and a set that exist."""
    configs = [
        load_config(ProbeRunConfig, [str(path)], choices=CHOICES)
        for path in sorted((ROOT / "eval/configs/probes").glob("*.yaml"))
    ]
    assert {config.probe.name for config in configs} == set(PROBES)
    names = [config.ledger_name for config in configs]
    assert len(set(names)) == len(names)  # none writes over another's figures


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("class", marks=pytest.mark.long),
        "tint",
        pytest.param("binding", marks=pytest.mark.long),
    ],
)
def test_zero_shot(task, model, tmp_path, monkeypatch):
    stages = ("--probe.stages.0.num_draws", 1)
    flags = (*WORLD, "--data.num_test", 4, "--probe.batch_size", 64, *stages)
    results = run_probe(monkeypatch, f"zero_shot_{task}", model, tmp_path, *flags)
    table = results["table"]
    assert {"random network", "unpaired noise, to the end", "chance"} < set(table)
    assert table["chance"]["right"] == {"class": 0.0156, "tint": 0.0909, "binding": 0.5}[task]
    full = table["all candidates to the end"]["evaluations a picture"]
    assert table["pruned"]["evaluations a picture"] <= full


def test_correspond(model, tmp_path, monkeypatch):
    flags = ("--probe.timesteps", 0.1, 0.2, 0.4, "--probe.num_noises", 1)
    results = run_probe(monkeypatch, "correspond", model, tmp_path, *WORLD, *flags)
    assert set(results["table"]) == {
        *("features", "random network", "image tokenizer's encoder", "raw patches"),
        *("same place", "chance"),
    }
    assert results["figures"]["pairs"] == 4
    assert (tmp_path / "grid.png").exists()


def test_segment(model, tmp_path, monkeypatch):
    results = run_probe(
        monkeypatch,
        *("segment", model, tmp_path, *WORLD, "--probe.timesteps", 0.1, "--probe.layers", 0, 1),
        *("--probe.train.num_steps", 4, "--probe.train.batch_size", 8, "--probe.num_noises", 1),
        *("--probe.supervised.num_steps", 2, "--probe.supervised.batch_size", 4),
    )
    assert set(results["table"]) == {
        *("features", "random network", "image tokenizer's encoder", "raw pixels"),
        *("supervised, same network", "commonest class everywhere"),
    }


def test_marigold(model, tmp_path, monkeypatch):
    results = run_probe(
        monkeypatch,
        *("marigold", model, tmp_path, *WORLD, "--probe.train.num_steps", 2),
        *("--probe.one_step.num_steps", 2, "--probe.num_steps", 1, 2, "--probe.num_members", 3),
        *("--probe.train.batch_size", 4, "--probe.one_step.batch_size", 4),
    )
    assert set(results["table"]) == {
        *("1 steps", "2 steps", "2 steps, 3 members", "one step, end to end"),
        *("head from scratch", "depth through the image tokenizer", "mean depth map"),
        "constant depth",
    }
    assert (tmp_path / "painted.png").exists()


def test_marigold_takes_the_head_of_a_joint_model(tmp_path, monkeypatch):
    """It comes last there; other probes look at what denoises first."""
    folder = tmp_path / "model"
    tiny_pipeline("masked", "transfusion", "diffusion").save_pretrained(folder)
    few = ("--probe.train.num_steps", 1, "--probe.one_step.num_steps", 1)
    few = (*few, "--probe.num_steps", 1, "--probe.num_members", 2)
    flags = (*WORLD, *few, "--probe.train.batch_size", 4, "--probe.one_step.batch_size", 4)
    results = run_probe(monkeypatch, "marigold", folder, tmp_path, *flags)
    assert results["table"]["head from scratch"]["AbsRel, aligned"] > 0


def test_depth_sequence(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    tiny_pipeline("next_token").save_pretrained(folder)
    results = run_probe(
        monkeypatch,
        *("depth_sequence", folder, tmp_path, *WORLD, "--probe.train.num_steps", 2),
        *("--probe.train.batch_size", 4, "--probe.num_members", 3, "--probe.batch_size", 5),
    )
    assert set(results["table"]) == {
        *("temperature 0", "one sample", "3 samples merged", "model from scratch"),
        *("depth through the image tokenizer", "mean depth map", "constant depth"),
    }
    assert results["figures"]["objective"] == "next_token"
    assert (tmp_path / "drawn.png").exists()


def test_hyperfeatures(model, tmp_path, monkeypatch):
    results = run_probe(
        monkeypatch,
        *("hyperfeatures", model, tmp_path, *WORLD, "--probe.single.timesteps", 0.1, 0.3),
        *("--probe.single.num_noises", 1, "--probe.num_steps", 2, "--probe.batch_size", 2),
    )
    assert {"features", "random network, mixed", "features, single map"} < set(results["table"])
    assert set(results["figures"]["weights"]["layer 1"]) == {"0.1", "0.3"}
