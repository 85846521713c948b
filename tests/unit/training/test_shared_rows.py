"""Training with rows shared by ranks, two groups of two, follows the single process's curve."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from corpora import tiny_run
from run_shared_rows import shared_run

from unimm.training.config import EngineConfig
from unimm.training.loop import train

TESTS = Path(__file__).parents[2]
FIGURES = ("text", "next_token", "masked", "diffusion", "norm", "images")


def lines(folder):
    return [json.loads(x) for x in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_two_groups_of_two_ranks_train_as_one_process(tmp_path):
    config = shared_run(tmp_path, "alone", micro_rows=2)
    train(config, draw=lambda *_: None, save=lambda *_: None)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"),
            *("4", str(TESTS / "run_shared_rows.py"), str(tmp_path)),
        ],
        env=env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    exact = [x for x in lines(tmp_path / "alone") if "learning_rate" in x]
    held_out = [x for x in lines(tmp_path / "alone") if "validation/text" in x]
    for stage in (0, 1, 3):
        found = lines(tmp_path / f"shared_{stage}")
        steps = [x for x in found if "learning_rate" in x]
        for ours, theirs in zip(steps, exact, strict=True):
            for name in FIGURES:
                assert ours[name] == pytest.approx(theirs[name], rel=2e-5, abs=2e-5), (stage, name)
        # Extrapolated from the first rank's rows.
        assert steps[-1]["flops"] == pytest.approx(exact[-1]["flops"], rel=0.1)
        scored = [x for x in found if "validation/text" in x]
        for ours, theirs in zip(scored, held_out, strict=True):
            for name in ("validation/text", "validation/diffusion"):
                assert ours[name] == pytest.approx(theirs[name], abs=2e-5), (stage, name)


def test_heads_must_be_shared_evenly(tmp_path):
    config = tiny_run(tmp_path)
    with pytest.raises(ValueError, match="sequence_ranks 4 must divide num_heads 2"):
        replace(config, engine=EngineConfig(sequence_ranks=4))
