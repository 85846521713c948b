"""Two GPUs learn what one does, in every ZeRO stage, with compiled layers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from corpora import tiny_run
from run_stages import GPU_WAYS, STEPS, gpu_config, run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
]

TESTS = Path(__file__).parents[1]
HEADS = ("text", "next_token", "next_scale", "masked", "diffusion", "norm")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the runs of two GPUs, and of one without compiled layers."""
    folder = tmp_path_factory.mktemp("ranks")
    tiny_run(folder)  # writes shards and tokenizers
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", str(TESTS / "run_stages.py"), str(folder), "gpu"),
        ],
        env=env | {"PYTHONPATH": path},
        check=True,
    )
    run(gpu_config(folder, "exact"))
    return folder


def curve(folder, name):
    lines = map(json.loads, (folder / name / "log.jsonl").read_text().splitlines())
    return torch.tensor([[x[key] for key in HEADS] for x in lines if "learning_rate" in x])


@pytest.mark.parametrize("name", GPU_WAYS)
def test_two_gpus_learn_what_one_learns(runs, name):
    found, exact = curve(runs, name), curve(runs, "exact")
    assert len(exact) == STEPS and exact[-1, 0] < exact[0, 0] - 0.3
    assert torch.allclose(found, exact, atol=2e-3), (found - exact).abs().amax(0)
