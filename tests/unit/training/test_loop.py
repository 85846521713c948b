"""The loop on a tiny model: it learns, it notices NaN, a step is the same however it is cut."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from corpora import tiny_data, tiny_run, tiny_tokenizers, write_shards
from helpers import tiny_objective

from unimm.model import UniMM
from unimm.objectives import OBJECTIVES
from unimm.training.config import EngineConfig, LoggingConfig, ScheduleConfig
from unimm.training.loop import train
from unimm.training.schedule import Clock, learning_rate_factor


def nothing(model, parts, path):
    pass


def read_log(config):
    return [json.loads(x) for x in Path(config.run_dir, "log.jsonl").read_text().splitlines()]


def run(config):
    train(config, draw=nothing, save=nothing)
    return [x for x in read_log(config) if "learning_rate" in x]


def losses(lines):
    return [(x["text"], x["next_token"]) for x in lines]


def test_the_loss_falls_and_the_saved_weights_are_the_average(tmp_path):
    saved = {}

    def save(model, parts, path):
        saved["text"] = model.text_embedding.weight.clone()
        assert path.name == "model" and type(model) is UniMM

    config = tiny_run(tmp_path, max_steps=30)
    train(config, draw=nothing, save=save)
    lines = read_log(config)
    steps = [x for x in lines if "learning_rate" in x]
    assert steps[-1]["text"] < 0.7 * steps[0]["text"]
    final = lines[-1]
    assert {"validation/text", "validation/next_token"} <= final.keys()
    assert final["validation/text"] < 5
    assert saved["text"].isfinite().all()


def test_accumulation_changes_nothing(tmp_path):
    whole = losses(run(tiny_run(tmp_path)))
    data = tiny_data(tmp_path, micro_rows=1)
    cut = losses(run(tiny_run(tmp_path, data=data, run_dir=str(tmp_path / "cut"))))
    assert torch.allclose(torch.tensor(whole), torch.tensor(cut), atol=1e-5)


def test_activation_checkpointing_changes_nothing(tmp_path):
    plain = losses(run(tiny_run(tmp_path)))
    engine = EngineConfig(checkpoint_activations=True)
    again = losses(run(tiny_run(tmp_path, engine=engine, run_dir=str(tmp_path / "again"))))
    assert torch.allclose(torch.tensor(plain), torch.tensor(again), atol=1e-6)


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_looking_at_the_average_changes_nothing(tmp_path, stage):
    engine = EngineConfig(precision="bfloat16" if stage else "float32", zero_stage=stage)
    curves = []
    for every in (0, 2):
        config = tiny_run(
            tmp_path,
            engine=engine,
            logging=LoggingConfig(log_every=1, evaluate_every=every, sample_every=0, save_every=0),
            run_dir=str(tmp_path / f"every_{every}"),
        )
        curves.append(losses(run(config)))
    assert curves[0] == curves[1]


@pytest.mark.parametrize(
    "engine", [dict(precision="autocast"), dict(precision="bfloat16", zero_stage=1)]
)
def test_bfloat16_follows_float32(tmp_path, engine):
    exact = losses(run(tiny_run(tmp_path)))
    config = tiny_run(tmp_path, engine=EngineConfig(**engine), run_dir=str(tmp_path / "half"))
    half = losses(run(config))
    assert torch.allclose(torch.tensor(exact), torch.tensor(half), atol=0.05)
    assert exact != half


@pytest.mark.parametrize("engine", [{}, dict(precision="bfloat16", zero_stage=1)])
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_every_objective_learns(tmp_path, name, engine):
    base = tiny_run(tmp_path)
    config = replace(
        base,
        model=replace(base.model, objectives=(tiny_objective(name),)),
        engine=EngineConfig(**engine),
        max_steps=20,
    )
    lines = run(config)
    assert lines[-1]["text"] < 0.8 * lines[0]["text"] and lines[-1][name] < 0.95 * lines[0][name]
    assert f"validation/{name}" in read_log(config)[-1]


def test_latents_of_another_size_are_told(tmp_path, caplog):
    """The tiny tokenizer's statistics were never measured."""
    base = tiny_run(tmp_path, max_steps=1)
    run(replace(base, model=replace(base.model, objectives=(tiny_objective("diffusion"),))))
    assert "have standard deviations from 0.5" in caplog.text


def test_shards_without_latents_are_refused(tmp_path):
    base = tiny_run(tmp_path)
    folder = write_shards(tmp_path / "codes", tokenizer_hash=tiny_tokenizers(tmp_path))
    config = replace(
        base,
        model=replace(base.model, objectives=(tiny_objective("diffusion"),)),
        data=replace(base.data, train=str(folder)),
    )
    with pytest.raises(ValueError, match=r"codes only, but diffusion .*--with_latents True"):
        run(config)


def test_other_settings_in_the_same_folder_are_refused(tmp_path):
    config = tiny_run(tmp_path, max_steps=1)
    run(config)
    with pytest.raises(ValueError, match=r"other settings \(seed: 0 there, 1 now\)"):
        run(replace(config, seed=1))
    run(replace(config, logging=LoggingConfig(log_every=3)))


def test_a_step_that_cannot_be_cut(tmp_path):
    with pytest.raises(ValueError, match="rows_per_step 4 is not a multiple of 3 micro_rows"):
        run(tiny_run(tmp_path, data=tiny_data(tmp_path, micro_rows=3)))


def test_zero_0_with_bfloat16_is_refused():
    with pytest.raises(ValueError, match="use zero_stage 1, or precision autocast"):
        EngineConfig(precision="bfloat16")


def test_engines_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="offload_optimizer needs zero_stage 1, 2 or 3"):
        EngineConfig(offload_optimizer=True)


def test_a_bound_on_time_ends_the_run_and_the_schedule(tmp_path):
    config = tiny_run(
        tmp_path,
        max_steps=100_000,
        max_minutes=2 / 60,
        schedule=ScheduleConfig(name="cosine", final=0.1),
    )
    lines = run(config)
    assert 3 < len(lines) < 100_000
    assert lines[-1]["learning_rate"] == pytest.approx(0.1 * 5e-3, rel=0.05)


def test_counted_operations_bound_a_run(tmp_path):
    whole = run(tiny_run(tmp_path, max_steps=12))
    assert whole[0]["flops"] > 0 and whole[0]["images"] > 0
    assert whole[-1]["flops"] == pytest.approx(12 * whole[0]["flops"], rel=0.1)
    limit = 0.5 * whole[-1]["flops"]
    half = run(tiny_run(tmp_path, max_flops=limit, run_dir=str(tmp_path / "half")))
    assert limit <= half[-1]["flops"] < 1.2 * limit and len(half) in (6, 7)
    with pytest.raises(ValueError, match="max_flops must be positive"):
        tiny_run(tmp_path, max_flops=0.0)


def test_work_done_outlives_an_interruption(tmp_path):
    config = tiny_run(tmp_path, max_steps=4)
    whole = run(config)
    part = replace(config, run_dir=str(tmp_path / "part"))
    logging = replace(config.logging, save_every=2)
    stopped = replace(part, max_steps=2, logging=logging)
    run(stopped)
    (tmp_path / "part" / "config.yaml").unlink()
    again = run(part)
    assert [x["images"] for x in again] == [x["images"] for x in whole]
    assert again[-1]["flops"] == pytest.approx(whole[-1]["flops"])


def test_schedule_shapes():
    def rate(progress, **kwargs):
        return learning_rate_factor(progress, **(dict(warmup=0.1, hold=0.5, final=0.02) | kwargs))

    assert rate(0.05) == pytest.approx(0.5) and rate(0.1) == rate(0.49) == 1.0
    assert rate(0.75) == pytest.approx(0.51) and rate(1.0) == pytest.approx(0.02)
    assert rate(0.3, hold=0.1) < 1
    clock = Clock(max_steps=10)
    assert clock.progress(3) == 0.3 and clock.progress(20) == 1.0
    assert clock.share_of_work(5.0) == 0.0
    assert Clock(max_steps=10, max_flops=10.0).share_of_work(5.0) == 0.5


def test_time_bounds_a_run_without_its_first_step():
    clock = Clock(max_steps=1000, max_seconds=60, seconds=20, warm_seconds=20)
    assert clock.progress(1) == pytest.approx(1 / 1000, abs=1e-3)
    assert Clock(max_steps=1000, max_seconds=60, seconds=40, warm_seconds=20).progress(
        10
    ) == pytest.approx(0.5, abs=1e-3)
    assert Clock(max_steps=1000, max_seconds=60, seconds=61, warm_seconds=20).progress(10) == 1.0
