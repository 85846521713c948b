"""One rank or two, any ZeRO stage: one loss curve, also where a rank lacks a head's pictures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from corpora import tiny_run

TESTS = Path(__file__).parents[2]
HEADS = ("text", "next_token", "next_scale", "masked", "diffusion", "norm")


def launch(folder, word, num_ranks):
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", str(num_ranks), str(TESTS / "run_stages.py"), str(folder), word),
        ],
        env=env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def curve(folder, name):
    lines = map(json.loads, (folder / name / "log.jsonl").read_text().splitlines())
    found = [x for x in lines if "learning_rate" in x]
    assert len(found) == 6
    return torch.tensor([[x.get(head, 0.0) for head in HEADS] for x in found])


def test_all_stages_on_one_and_two_ranks_agree(tmp_path):
    tiny_run(tmp_path)  # writes shards and tokenizers
    launch(tmp_path, "one", 1)
    launch(tmp_path, "two", 2)
    exact = curve(tmp_path, "one_0")
    assert exact[-1, 0] < exact[0, 0] - 0.5
    weights = torch.load(tmp_path / "one_0/weights.pt")
    for word in ("one", "two"):
        for stage in (0, 1, 2, 3):
            found = curve(tmp_path, f"{word}_{stage}")
            assert torch.allclose(found, exact, atol=2e-4), (word, stage, found - exact)
            saved = torch.load(tmp_path / f"{word}_{stage}/weights.pt")
            for name, tensor in weights.items():
                assert torch.allclose(saved[name], tensor, atol=2e-4), (word, stage, name)
