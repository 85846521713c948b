"""A killed run reaches the losses of an unbroken one, to the bit."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import tiny_run
from safetensors.torch import load_file, save_file

from unimm.config import save_config
from unimm.training import partition_files
from unimm.training.config import LoggingConfig, TrainConfig
from unimm.training.loop import train
from unimm.training.resume import CHOICES

LOGGING = LoggingConfig(log_every=1, evaluate_every=0, sample_every=0, save_every=3)
# Runs a config; argv: YAML, where to hang ("step" or "save"), after how many of them.
SCRIPT = """
import sys, time
from pathlib import Path
import torch
from unimm.config import load_config
from unimm.training import loop
from unimm.training.config import TrainConfig
from unimm.training.engine import Engine
from unimm.training.resume import CHOICES

path, place, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
name = {"step": "backward", "save": "save"}[place]
real, calls = getattr(Engine, name), []

def hang(self, *args):
    result = real(self, *args)
    calls.append(1)
    if len(calls) == number:
        print("HANGS", flush=True)
        time.sleep(3)  # a signal may come before a pause would begin, and be missed
    return result

if number:
    setattr(Engine, name, hang)
torch.set_num_threads(1)
nothing = lambda model, parts, path: None
loop.train(load_config(TrainConfig, [path], choices=CHOICES), draw=nothing, save=nothing)
"""


def losses(config: TrainConfig) -> dict[tuple[int, str], float]:
    """Losses by step and name; a step that ran twice must have had the same ones.

    Those of the validation are of the averaged weights, so they tell whether the average came back.
    """
    found: dict[tuple[int, str], float] = {}
    for line in map(json.loads, Path(config.run_dir, "log.jsonl").read_text().splitlines()):
        for name in {"text", "next_token", "validation/text", "validation/next_token"} & {*line}:
            assert found.setdefault((line["step"], name), line[name]) == line[name]
    assert (config.max_steps, "validation/text") in found
    return found


def start(config: TrainConfig, place: str, number: int) -> subprocess.Popen[str]:
    path = Path(config.run_dir).parent / "start.yaml"
    # Not the ranks of a run in this process.
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    save_config(config, path, choices=CHOICES)
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), place, str(number)],
        stdout=subprocess.PIPE,
        text=True,
        env=env | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    raise AssertionError(f"the run ended without {word}")


@pytest.fixture
def unbroken(tmp_path):
    config = tiny_run(tmp_path, logging=LOGGING, run_dir=str(tmp_path / "unbroken"), max_steps=8)
    assert start(config, "step", 0).wait() == 0
    return losses(config)


@pytest.mark.parametrize(("place", "number"), [("step", 5), ("save", 2)])
def test_sigkill_in_a_step_or_a_save(tmp_path, unbroken, place, number):
    config = tiny_run(tmp_path, logging=LOGGING, max_steps=8)
    process = start(config, place, number)
    wait_for(process, "HANGS")
    process.send_signal(signal.SIGKILL)
    process.wait()
    names = [path.name for path in (Path(config.run_dir) / "checkpoints").iterdir()]
    assert "step_00000003" in names and (".partial" in names) == (place == "save")
    assert start(config, place, 0).wait() == 0
    assert losses(config) == unbroken


def test_sigterm_to_the_whole_group_saves_and_exits(tmp_path, unbroken):
    config = tiny_run(tmp_path, logging=replace(LOGGING, save_every=0), max_steps=8)
    config = replace(config, data=replace(config.data, num_workers=1))
    process = start(config, "step", 2)
    wait_for(process, "HANGS")
    os.killpg(process.pid, signal.SIGTERM)  # as timeout and job managers do: workers get it too
    assert process.wait() == 0
    assert (Path(config.run_dir) / "checkpoints/step_00000003").is_dir()
    assert start(config, "step", 0).wait() == 0
    assert losses(config) == unbroken


def test_old_checkpoints_are_deleted(tmp_path):
    logging = replace(LOGGING, save_every=1, keep_checkpoints=2)
    config = tiny_run(tmp_path, logging=logging, max_steps=4)
    train(config, draw=nothing, save=nothing)
    names = sorted(path.name for path in (Path(config.run_dir) / "checkpoints").iterdir())
    assert names == ["step_00000003", "step_00000004"]


@pytest.fixture
def checkpoint(tmp_path):
    """A config with a run of three steps, and its last checkpoint."""
    config = tiny_run(tmp_path, logging=LOGGING, max_steps=3)
    train(config, draw=nothing, save=nothing)
    return config, Path(config.run_dir) / "checkpoints/step_00000003"


def nothing(model, parts, path):
    pass


def test_a_truncated_checkpoint_is_refused(checkpoint):
    config, folder = checkpoint
    path = folder / "rank_00000_0000.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"rank_00000_0000.safetensors \(\d+ bytes\) is damaged"):
        train(config, draw=nothing, save=nothing)


def test_a_checkpoint_that_lacks_a_part_is_refused(checkpoint):
    config, folder = checkpoint
    path = folder / "rank_00000_0000.safetensors"
    tensors = load_file(path)
    assert {name.split("/")[0] for name in tensors} == {
        *("weight", "average", "exp_avg", "exp_avg_sq")
    }
    del tensors["exp_avg/0/backbone.norm.weight"]
    save_file(tensors, path, {"num_updates": "3"})
    with pytest.raises(
        ValueError, match="holds 0 values of exp_avg backbone.norm.weight, this run needs 32"
    ):
        train(config, draw=nothing, save=nothing)


def test_no_file_of_a_checkpoint_is_a_pickle(checkpoint):
    _, folder = checkpoint
    assert {path.suffix for path in folder.iterdir()} == {".safetensors", ".json"}


def test_large_parts_are_written_in_several_files(checkpoint, tmp_path, monkeypatch):
    """So that little more than one buffer is copied to the host at a time."""
    config, folder = checkpoint
    whole = load_file(folder / "rank_00000_0000.safetensors")
    monkeypatch.setattr(partition_files, "_BUFFER", 20_000)
    again = replace(config, run_dir=str(tmp_path / "again"))
    train(again, draw=nothing, save=nothing)
    paths = sorted(Path(again.run_dir).glob("checkpoints/step_00000003/*.safetensors"))
    largest = max(tensor.nbytes for tensor in whole.values())
    assert len(paths) > 5
    assert all(path.stat().st_size < 20_000 + largest + 10_000 for path in paths)
    parts = {name: tensor for path in paths for name, tensor in load_file(path).items()}
    assert parts.keys() == whole.keys()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
