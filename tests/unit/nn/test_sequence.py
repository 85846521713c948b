"""Rows shared by two ranks give the losses and gradients of one rank that has them whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unimm.distributed import _free_port
from unimm.nn.sequence import SequenceGroup

TESTS = Path(__file__).parents[2]
# Each rank differentiates the whole loss by half, as the counts over all ranks make it.
SCRIPT = """
import sys
import torch
from helpers import OBJECTIVES, packed, random_story, tiny_model, tiny_objective
from unimm.distributed import all_reduce_sum, init_distributed, rank, shutdown
from unimm.nn.sequence import SequenceGroup

torch.set_num_threads(1)
init_distributed("cpu")
group = SequenceGroup(2)
worst = 0.0
for name in sorted(OBJECTIVES):
    rows = [[random_story(1, num_pages=2)], [random_story(2), random_story(3, index=1)]]
    batch = packed(tiny_objective(name), rows, row_length=192)
    for backend, recompute in (("auto", False), ("dense", True)):
        whole, shared = tiny_model(name), tiny_model(name)
        shared.backbone.sequence, shared.backbone.use_checkpointing = group, recompute
        for model in (whole, shared):  # heads that start at zero give the trunk no gradient
            generator = torch.Generator().manual_seed(0)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
        exact = whole(batch, backend=backend).total
        exact.backward()
        total = shared(batch, backend=backend).total
        (total / 2).backward()
        assert abs(float(total) - float(exact)) < 1e-5, (name, float(total), float(exact))
        for (key, p), q in zip(whole.named_parameters(), shared.parameters()):
            if p.grad is None:
                assert q.grad is None, key
                continue
            found = all_reduce_sum(q.grad)
            worst = max(worst, float((found - p.grad).abs().max()))
            assert torch.allclose(found, p.grad, atol=1e-5), (name, key)
    assert whole.backbone.layers[0].self_attn.k_proj.weight.grad.abs().max() > 1e-4
print("EQUAL", worst)
shutdown()
"""


def test_losses_and_gradients_of_shared_rows():
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "WORLD_SIZE": "2"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=env | {"RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for process in ranks:
        out, error = process.communicate(timeout=200)
        assert process.returncode == 0, error[-3000:]
        assert "EQUAL" in out


def test_groups_must_divide_the_ranks():
    with pytest.raises(ValueError, match="1 processes cannot be put in groups of sequence_ranks 2"):
        SequenceGroup(2)


def test_rows_must_be_cut_evenly():
    group = SequenceGroup.__new__(SequenceGroup)
    group.size, group.place = 2, 1
    assert group.split(torch.arange(8).view(1, 8)).tolist() == [[4, 5, 6, 7]]
    with pytest.raises(ValueError, match="make data.row_length a multiple"):
        group.split(torch.zeros(1, 7, 3))
