"""Turns of two programs, and what is compared with others."""

import os
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from unimm.evaluation.drawing_pairs import our_drawing, our_head, shrunk
from unimm.evaluation.peer_programs import dit_denoise
from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.evaluation.side_by_side import Apart, Program, in_turns
from unimm.nn.denoiser import Denoiser

CPU = torch.device("cpu")


def test_turns_alternate_and_the_ratio_is_theirs_over_ours():
    seen = []

    def program(name: str, seconds: float) -> Program:
        def run() -> None:
            seen.append(name)
            time.sleep(seconds)

        return run

    found = in_turns(
        program("ours", 0.01),
        program("theirs", 0.03),
        device=CPU,
        turns=2,
        calls=2,
        num_warm=1,
        per_call=10,
    )
    first = ["ours"] * 2 + ["theirs"] * 2  # to compile and record
    assert seen == first + (["ours"] * 3 + ["theirs"] * 3) * 2
    assert found["turns"] == 2 and 1 <= found["ours"] < found["theirs"]
    assert found["lowest"] <= found["ratio"] <= found["highest"]
    assert found["ratio"] == pytest.approx(3, rel=0.3)


def _counting(folder: Path) -> Program:
    """A program that leaves a file a call, with the process it ran in, and fails at the seventh."""
    torch.backends.cuda.matmul.allow_tf32 = True

    def run() -> None:
        count = len([*folder.iterdir()])
        if count == 6:
            raise ZeroDivisionError("seventh")
        (folder / str(count)).write_text(str(os.getpid()))

    return run


def _ending() -> Program:
    return partial(os._exit, 3)


def test_a_program_apart_leaves_nothing_here_and_says_why_it_failed(tmp_path):
    before = torch.backends.cuda.matmul.allow_tf32
    with Apart(partial(_counting, tmp_path), device=CPU) as theirs:
        found = in_turns(lambda: None, theirs, device=CPU, turns=2, calls=1, num_warm=1)
        assert found["turns"] == 2 and found["ratio"] > 1
        [process] = {int(x.read_text()) for x in tmp_path.iterdir()}
        assert process != os.getpid() and torch.backends.cuda.matmul.allow_tf32 == before
        with pytest.raises(RuntimeError, match="ZeroDivisionError: seventh"):
            theirs.turn(calls=1, num_warm=0)
    with Apart(_ending, device=CPU) as theirs, pytest.raises(RuntimeError, match="ended with 3"):
        theirs.turn(calls=1, num_warm=0)


def test_a_shrunk_model_of_every_kind_is_drawn():
    for name in ("343M", "var-d16", "mar-b"):
        sizes = shrunk(SIZES[name])
        pipeline = random_pipeline(sizes, device=CPU)
        our_drawing(pipeline, sizes.sampling, batch_size=2)()


def test_a_head_evaluates_all_positions_of_all_branches(monkeypatch):
    rows = []
    forward = Denoiser.forward
    monkeypatch.setattr(
        Denoiser, "forward", lambda self, x, *rest: rows.append(x.shape) or forward(self, x, *rest)
    )
    sizes = shrunk(SIZES["mar-b"])
    our_head(sizes, batch_size=3, grid_size=2, device=CPU)()
    assert rows == [(2 * 3, 16, 2, 2)] * sizes.sampling.num_steps
    with pytest.raises(ValueError, match=r"docs/performance\.md"):
        dit_denoise(Path("nowhere"), batch_size=1, device=CPU, tiny=True)
