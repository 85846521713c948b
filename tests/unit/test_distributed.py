import os
import subprocess
import sys

import pytest

from unimm import distributed

SUM_OF_RANKS = """
import torch
from unimm import distributed as d
d.init_distributed("cpu")
total = d.all_reduce_sum(torch.tensor([float(d.rank() + 1)]))
d.barrier()
print(d.rank(), d.world_size(), d.local_rank(), d.is_main(), total.item(), flush=True)
d.shutdown()
"""

PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def clean_environment():
    kept = {key: value for key, value in os.environ.items() if key not in PLACE}
    return {**kept, "OMP_NUM_THREADS": "1"}


def run(*command, env=None):
    environment = clean_environment() | (env or {})
    return subprocess.Popen(
        [sys.executable, *command], env=environment, stdout=subprocess.PIPE, text=True
    )


ALONE = """
import torch
from unimm import distributed as d
assert (d.rank(), d.world_size(), d.local_rank()) == (0, 1, 0)
assert d.is_main()
tensor = torch.tensor([2.0])
assert d.all_reduce_sum(tensor) is tensor and tensor.item() == 2.0
d.barrier()
d.shutdown()
"""


def test_without_a_group_everything_is_a_single_process():
    """In a process of its own: other tests leave this one in a run that must not end."""
    process = run("-c", ALONE)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_unknown_device_is_refused():
    with pytest.raises(ValueError, match="cpu or cuda, got 'meta'"):
        distributed.init_distributed("meta")


def test_plain_python_becomes_the_only_process():
    process = run("-c", SUM_OF_RANKS + "d.init_distributed('cpu'); d.shutdown()")
    assert process.communicate(timeout=120)[0].split() == ["0", "1", "0", "True", "1.0"]
    assert process.returncode == 0


def test_two_processes_find_each_other_and_sum():
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    address["MASTER_PORT"] = str(distributed._free_port())
    places = [address | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [run("-c", SUM_OF_RANKS, env=place) for place in places]
    outputs = [process.communicate(timeout=120)[0].split() for process in processes]
    assert outputs == [["0", "2", "0", "True", "3.0"], ["1", "2", "1", "False", "3.0"]]
