"""Two launchers stand for two machines: together they train as one process does."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import tiny_data, tiny_run

from unimm.config import save_config
from unimm.distributed import _free_port
from unimm.training.config import LoggingConfig
from unimm.training.loop import train
from unimm.training.resume import CHOICES

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from unimm.config import load_config
from unimm.distributed import shutdown
from unimm.training.config import TrainConfig
from unimm.training.loop import train
from unimm.training.resume import CHOICES

nothing = lambda model, parts, path: None
train(load_config(TrainConfig, sys.argv[1:], choices=CHOICES), draw=nothing, save=nothing)
shutdown()
"""


def curve(config):
    lines = map(json.loads, Path(config.run_dir, "log.jsonl").read_text().splitlines())
    return torch.tensor([[x["text"], x["next_token"]] for x in lines if "learning_rate" in x])


@pytest.mark.long
def test_two_nodes_train_as_one_process(tmp_path):
    logging = LoggingConfig(log_every=1, evaluate_every=0, sample_every=0, save_every=6)
    alone = tiny_run(tmp_path, data=tiny_data(tmp_path, micro_rows=1), logging=logging)
    train(alone, draw=lambda *_: None, save=lambda *_: None)
    config = replace(alone, run_dir=str(tmp_path / "nodes"))
    save_config(config, tmp_path / "nodes.yaml", choices=CHOICES)
    (tmp_path / "script.py").write_text(SCRIPT)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu"}
    port = _free_port()
    nodes = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"),
                *("--nproc_per_node", "1", "--node_rank", str(number), "--rdzv_backend", "c10d"),
                *("--rdzv_id", "test", "--rdzv_endpoint", f"127.0.0.1:{port}"),
                *(str(tmp_path / "script.py"), str(tmp_path / "nodes.yaml")),
            ],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert torch.allclose(curve(config), curve(alone), atol=1e-5)
    state = tmp_path / "nodes/checkpoints/step_00000006/state.json"
    assert json.loads(state.read_text())["num_ranks"] == 2
