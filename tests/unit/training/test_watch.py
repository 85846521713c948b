"""A bad step leaves no trace, in any ZeRO stage; too many in a row end the run, batch in hand."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import tiny_run
from helpers import packed, random_story, tiny_model, tiny_objective

from unimm.model import UniMM
from unimm.objectives import OBJECTIVES
from unimm.training.config import EngineConfig, GuardConfig, LoggingConfig, OptimizerConfig
from unimm.training.engine import Engine, choose_device
from unimm.training.loop import train
from unimm.training.watch import StepGuard, load_batch, save_batch

TESTS = Path(__file__).parents[2]
CPU = torch.device("cpu")


def run(config):
    train(config, draw=lambda *_: None, save=lambda *_: None)
    lines = map(json.loads, Path(config.run_dir, "log.jsonl").read_text().splitlines())
    return [x for x in lines if "learning_rate" in x]


def poison(monkeypatch, *, calls, factor):
    """Multiply the loss of some forwards."""
    forward, seen = UniMM.forward, []

    def poisoned(self, batch, **kwargs):
        losses = forward(self, batch, **kwargs)
        seen.append(batch)
        return replace(losses, total=losses.total * factor) if len(seen) in calls else losses

    monkeypatch.setattr(UniMM, "forward", poisoned)
    return seen


QUICK = [dict(zero_stage=0), dict(zero_stage=2), dict(zero_stage=3, precision="bfloat16")]
SLOW = [dict(zero_stage=stage) for stage in (1, 3)]
SLOW += [dict(zero_stage=0, precision="autocast")]
SLOW += [dict(zero_stage=stage, precision="bfloat16") for stage in (1, 2)]
SETTINGS = [*QUICK, *(pytest.param(settings, marks=pytest.mark.long) for settings in SLOW)]


def make_engine(settings):
    config = EngineConfig(device="cpu", **settings)
    return Engine(tiny_model(), config, OptimizerConfig(), device=choose_device("cpu"))


def weights(engine):
    found = tiny_model(seed=1)
    engine.copy_weights(found)
    return {name: tensor.clone() for name, tensor in found.state_dict().items()}


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_skipped_step_leaves_weights_and_moments_as_they_were(settings, tmp_path):
    """One engine skips a spike, another never saw it: then both are equal to the bit."""
    batches = [packed(tiny_objective("next_token"), [[random_story(i)]]) for i in range(3)]
    found = []
    for bad in (False, True):
        engine = make_engine(settings)
        for number, batch in enumerate(batches):
            if number == 1 and not bad:
                continue
            losses = engine.forward(batch)
            engine.backward(losses.total)
            skip = torch.tensor(float(number == 1))
            engine.step(learning_rate=1e-2, step=0, skip=skip)
            assert float(engine.is_skipped) == float(skip)
        found.append(weights(engine))
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_gradient_that_is_no_number_is_skipped_without_being_told(settings):
    engine = make_engine(settings)
    before = weights(engine)
    losses = engine.forward(packed(tiny_objective("next_token"), [[random_story(0)]]))
    engine.backward(losses.total * float("nan"))
    engine.step(learning_rate=1e-2, step=0)
    assert float(engine.is_skipped) == 1
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(engine).items())


def test_a_nan_is_skipped_counted_and_outlived(tmp_path, monkeypatch):
    seen = poison(monkeypatch, calls={4}, factor=float("nan"))
    lines = run(tiny_run(tmp_path, max_steps=12))
    assert len(seen) >= 12
    assert [x["skipped"] for x in lines] == [0, 0, 0] + [1] * 9
    assert lines[-1]["text"] < lines[0]["text"]


def test_nans_in_a_row_end_the_run_and_save_the_batch(tmp_path, monkeypatch):
    seen = poison(monkeypatch, calls={4, 6, 7}, factor=float("nan"))
    logging = LoggingConfig(log_every=5, evaluate_every=0, sample_every=0, save_every=0)
    config = tiny_run(tmp_path, logging=logging, guard=GuardConfig(max_skipped=2), max_steps=20)
    with pytest.raises(RuntimeError, match=r"2 steps in a row were skipped, the last one, 6, with"):
        run(config)
    assert len(seen) == 10, "noticed at the next line of the log"
    path = tmp_path / "run/bad_step_6_rank_0_batch_0.safetensors"
    assert torch.equal(load_batch(path).input_ids, seen[6].input_ids)
    told = json.loads(path.with_suffix(".json").read_text())
    assert told["loss"] == "nan" and told["document_indices"] == [
        list(row) for row in seen[6].document_indices
    ]


def test_spikes_are_judged_by_the_running_mean(tmp_path):
    guard = StepGuard(GuardConfig(spike_ratio=3), run_dir=tmp_path, device=CPU)
    batch = packed(tiny_objective("next_token"), [[random_story(0)]])

    def judged(loss):
        guard.add(batch, torch.tensor(loss))
        skip = guard.judge()
        guard.close_step(0, skip)
        return bool(skip)

    assert judged(20.0) is False, "too early to know"
    assert not any(judged(2.0) for _ in range(120))
    assert judged(7.0) and judged(1e9) and not judged(5.5)
    guard.check()
    assert guard.num_skipped == 2
    again = StepGuard(GuardConfig(spike_ratio=3), run_dir=tmp_path, device=CPU, state=guard.state())
    guard = again
    assert judged(7.0) and not judged(2.0)
    guard.check()
    assert again.num_skipped == 3


def test_a_spike_ratio_that_skips_everything_is_refused():
    with pytest.raises(ValueError, match="skips ordinary steps"):
        GuardConfig(spike_ratio=0.5)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_saved_batch_gives_the_same_loss_again(name, tmp_path):
    batch = packed(tiny_objective(name), [[random_story(1), random_story(2, index=7)]], 256)
    save_batch(batch, tmp_path / "batch.safetensors")
    model = tiny_model(name)
    again = load_batch(tmp_path / "batch.safetensors")
    assert again.document_indices == batch.document_indices
    assert float(model(again).total) == float(model(batch).total)


@pytest.mark.long
def test_all_ranks_skip_what_one_of_them_cannot_use(tmp_path):
    tiny_run(tmp_path)  # writes shards and tokenizers
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    env = {key: value for key, value in os.environ.items() if key not in names}
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"),
            *("2", str(TESTS / "run_poisoned.py"), str(tmp_path)),
        ],
        env=env | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    curves = []
    for stage in (0, 1, 2, 3):
        lines = (tmp_path / f"stage_{stage}/log.jsonl").read_text().splitlines()
        steps = [x for x in map(json.loads, lines) if "learning_rate" in x]
        assert [x["skipped"] for x in steps] == [0, 0, 1, 1, 1, 1], stage
        curves.append([x["text"] for x in steps])
    assert curves[0][-1] < curves[0][0]
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=2e-5)
