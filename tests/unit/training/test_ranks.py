"""One rank or two, any ZeRO stage, interrupted or not: one loss curve, and no document twice."""

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from corpora import tiny_run
from run_stages import (
    ALL_WAYS,
    FROZEN,
    LEG_STEPS,
    LEGS,
    STEPS,
    TRUNK,
    WAYS,
    run,
    run_config,
    run_leg,
)
from safetensors.torch import load_file

pytestmark = pytest.mark.timeout(600)  # one fixture trains all runs, three processes at a time

TESTS = Path(__file__).parents[2]
EXACT_LEGS = ("exact_legs", "exact_legs_frozen")
HEADS = ("text", "next_token", "next_scale", "masked", "diffusion")


def launch(folder, task):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(TESTS / "run_stages.py"), str(folder), task),
        ],
        env=env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / "stderr").open("w"),
        text=True,
    )


def wait_for(path, process):
    while not path.exists():
        assert process.poll() is None, (path.parent / "stderr").read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs of two ranks, while they ran the ones of a single process, and last
    one whose second rank was killed: how long the launcher then took, and what was said."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny_run(folder)  # writes shards and tokenizers
    process = launch(folder, "some")
    try:
        run(run_config(folder, "exact"))
        run(run_config(folder, "first", max_steps=1, optimizer={"learning_rate": 0.0}))
        run(run_config(folder, "exact_legs", max_steps=LEG_STEPS))
        run(run_config(folder, "exact_legs_frozen", max_steps=LEG_STEPS, optimizer=FROZEN))
        wait_for(folder / "first_leg", process)
        run_leg(folder, 1)
        (folder / "second_leg").touch()
        wait_for(folder / "last_leg", process)
        started = time.monotonic()
        process.wait(timeout=120)
        return folder, time.monotonic() - started
    finally:
        process.terminate()


def curve(folder, name, steps):
    """Losses, norm and work of each step, and the last losses of the averaged weights."""
    lines = list(map(json.loads, (folder / name / "log.jsonl").read_text().splitlines()))
    found = [x for x in lines if "learning_rate" in x]
    assert [x["step"] for x in found] == list(range(1, steps + 1))
    training = [[x[key] for key in (*HEADS, "norm", "images")] for x in found]
    heldout = [[x[f"validation/{head}"] for head in HEADS] for x in lines if len(x) == 7]
    return torch.tensor(training), torch.tensor(heldout), found[-1]["flops"]


def assert_equal_runs(folder, name, exact, steps=STEPS):
    for found, wanted in zip(curve(folder, name, steps), curve(folder, exact, steps), strict=True):
        if isinstance(found, float):
            assert found == pytest.approx(wanted), name
            continue
        assert found.shape == wanted.shape and len(found)
        assert torch.allclose(found, wanted, rtol=0, atol=1e-5), (name, (found - wanted).abs())
    weights = load_file(folder / name / "weights.safetensors")
    for key, tensor in load_file(folder / exact / "weights.safetensors").items():
        assert torch.allclose(weights[key], tensor, rtol=0, atol=1e-5), (name, key)


@pytest.mark.parametrize("name", WAYS)
def test_two_ranks_learn_what_one_process_learns(runs, name):
    assert_equal_runs(runs[0], name, "exact")


def test_frozen_parts_stay_and_the_rest_learns(runs):
    """Else the agreement of runs would say little."""
    folder, _ = runs
    exact, frozen = (load_file(folder / name / "weights.safetensors") for name in EXACT_LEGS)
    first = load_file(folder / "first" / "weights.safetensors")
    text = curve(folder, "exact", STEPS)[0][:, 0]
    assert text[-1] < text[0] - 0.3
    for name, tensor in frozen.items():
        is_same = torch.equal(tensor, first[name])
        assert is_same == name.startswith(FROZEN["frozen"]), name
        assert not torch.equal(tensor, exact[name]), name


@pytest.mark.parametrize("name", LEGS)
def test_a_run_goes_on_with_other_ranks_and_in_another_stage(runs, name):
    folder, _ = runs
    assert_equal_runs(folder, f"legs_{name}", EXACT_LEGS[name == "frozen"], LEG_STEPS)


def test_an_export_takes_one_copy_and_a_tensor(runs):
    folder, _ = runs
    copies = json.loads((folder / "export.json").read_text())["copies"]
    assert 0.9 < copies < 1.6, "the tensors on their way are a part of so small a model"
    assert len(load_file(folder / "wide/model/model.safetensors")) > 10


def documents(folder, name):
    """Step -> the documents that its ranks saw."""
    found = {}
    for path in (folder / name).glob("seen_*.jsonl"):
        for number, batches in map(json.loads, path.read_text().splitlines()):
            numbers = [index for batch in batches for index in flat(batch)]
            found.setdefault(number, Counter()).update(numbers)
    return found


def flat(values):
    return [x for value in values for x in flat(value)] if isinstance(values, list) else [values]


@pytest.mark.parametrize("name", LEGS)
def test_no_document_is_seen_twice_or_skipped(runs, name):
    folder, _ = runs
    exact = documents(folder, "exact_legs")
    assert len(exact) == LEG_STEPS and exact[0] != exact[1]
    assert documents(folder, f"legs_{name}") == exact


def test_a_killed_rank_ends_the_others_and_is_named(runs):
    folder, seconds = runs
    said = (folder / "stderr").read_text()
    assert seconds < 60
    assert re.search(r"rank 0 stops: rank 1 on \S+ \(process \d+\) has died", said), said[-3000:]
    assert not (folder / "killed/weights.safetensors").exists()


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_all_combinations_agree(tmp_path):
    tiny_run(tmp_path)
    process = launch(tmp_path, "all")
    run(run_config(tmp_path, "exact"))
    run(run_config(tmp_path, "exact_frozen", optimizer=FROZEN))
    run(run_config(tmp_path, "exact_trunk", optimizer=TRUNK))
    assert process.wait() == 0, (tmp_path / "stderr").read_text()[-3000:]
    for name in ALL_WAYS:
        part = next((f"_{x}" for x in ("frozen", "trunk") if x in name), "")
        assert_equal_runs(tmp_path, name, f"exact{part}")
