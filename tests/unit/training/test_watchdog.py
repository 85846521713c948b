"""A rank that does not come is named, and the run ends instead of hanging."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpora import tiny_run

from unimm.distributed import _free_port
from unimm.training.watchdog import EXIT_CODE, Watchdog

TESTS = Path(__file__).parents[2]
# Rank 1 stalls before the second collective.
SCRIPT = """
import logging, time
from unimm.distributed import barrier, init_distributed, rank
from unimm.training.watchdog import Watchdog

logging.basicConfig()
init_distributed("cpu")
with Watchdog(1.0) as watchdog:
    for step in range(3):
        watchdog.enter(step, "load")
        if step == 1 and rank() == 1:
            time.sleep(600)
        watchdog.enter(step, "agree")
        barrier()
"""


def environment():
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}


def test_a_stalled_rank_is_named_with_step_and_phase():
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=environment() | place | {"RANK": str(number)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    told = [process.communicate(timeout=100)[1] for process in ranks]
    assert ranks[0].returncode == EXIT_CODE
    assert "in step 1, phase 'agree' on" in told[0], told
    assert "for: rank 1 in step 1, phase 'load' on " in told[0]
    assert "rank 1 keeps others waiting" in told[1] and 'File "<string>", line 12' in told[1]
    assert ranks[1].returncode not in (0, None), "it ends itself, too"


@pytest.mark.long
def test_a_stalled_loader_ends_a_training_run(tmp_path):
    tiny_run(tmp_path)  # writes shards and tokenizers
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"),
            *("2", str(TESTS / "run_stalled.py"), str(tmp_path), "2"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    told = f"{done.stderr}{done.stdout}"
    assert "in step 2, phase 'agree'" in told, told[-3000:]
    assert "for: rank 1 in step 2, phase 'load' on " in told
    assert "rank 1 keeps others waiting" in told and "in stalls" in told, "its stack"


def test_a_single_process_waits_for_nobody():
    with Watchdog(0.01) as watchdog:
        watchdog.enter(0, "load")
        time.sleep(0.1)


@pytest.mark.parametrize("limit", [0, 60])
def test_leaving_is_quick(limit):
    start = time.monotonic()
    with Watchdog(limit):
        pass
    assert time.monotonic() - start < 1
