"""The benchmark of ZeRO stages measures what its table says, tiny and on one rank or two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TINY = {
    "model.backbone.dim": 64,
    "model.backbone.depth": 2,
    "model.backbone.num_heads": 2,
    "model.backbone.num_kv_heads": 2,
    "data.world.num_documents": 24,
    "data.world.num_processes": 0,
    "data.world.image_size": 64,
    "data.num_workers": 0,
    "data.rows_per_step": 2,
    "logging.log_every": 1,
    "engine.compile": False,
    "max_steps": 3,
}


def measure(folder, num_ranks, *what):
    flags = TINY | {"data.world.cache_dir": folder / "cache"}
    words = [
        w for part in ("curve", "weak") for k, v in flags.items() for w in (f"--{part}.{k}", v)
    ]
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    script = (ROOT / "train/benchmark_scaling.py", ROOT / "train/configs/scaling.yaml")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", str(num_ranks), *map(str, script), *map(str, words)),
            *("--output", str(folder), "--ledger", str(folder), *what),
        ],
        cwd=ROOT,
        env=env | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "scaling.json").read_text())["figures"]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_stages_and_ranks_side_by_side(tmp_path):
    measure(tmp_path, 1, "--weak_stage", "1", "--curve_stages", "1")
    figures = measure(tmp_path, 2, "--weak_stage", "3", "--curve_stages", "1", "3")
    assert figures["losses"].keys() == {
        *("1 x ZeRO 1", "1 x, two micro-batches", "2 x ZeRO 1", "2 x ZeRO 3")
    }
    assert all(row["largest difference"] < 0.02 for row in figures["losses"].values())
    assert figures["speed"]["1 x ZeRO 1"]["efficiency"] == 1.0
    assert figures["speed"]["2 x ZeRO 3"]["tokens/s"] > 0
    assert figures["memory"]["2 x ZeRO 3"]["planned"] > 0
