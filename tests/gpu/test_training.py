"""Training on a GPU gives the CPU's losses: precisions, compiled layers, ZeRO stages."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from corpora import recipe_planner, tiny_data, tiny_run
from helpers import packed, random_story, tiny_image_tokenizer, tiny_model, tiny_objective

from unimm.objectives import OBJECTIVES
from unimm.training.config import EngineConfig, LoggingConfig
from unimm.training.engine import choose_device
from unimm.training.loop import train
from unimm.training.measure import measure_peak

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Else graphs of all tests would add up to more than the compiler keeps of one function."""
    torch.compiler.reset()


def losses(config):
    train(config, draw=lambda *_: None, save=lambda *_: None)
    lines = map(json.loads, Path(config.run_dir, "log.jsonl").read_text().splitlines())
    return torch.tensor([[x["text"], x["next_token"]] for x in lines if "learning_rate" in x])


def engine_run(tmp_path, name, **engine):
    return losses(
        tiny_run(
            tmp_path,
            engine=EngineConfig(device="cuda", **engine),
            # Heads of 32 channels: what the flash kernels take.
            data=tiny_data(tmp_path, row_length=256),
            run_dir=str(tmp_path / name),
            model=wide_model(),
        )
    )


def wide_model(*objectives: str):
    from unimm.model import ModelConfig
    from unimm.nn.transformer import BackboneConfig

    backbone = BackboneConfig(dim=64, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=96)
    return ModelConfig(
        backbone=backbone, objectives=tuple(map(tiny_objective, objectives or ("next_token",)))
    )


@pytest.mark.parametrize("names", [*((x,) for x in sorted(OBJECTIVES)), tuple(OBJECTIVES)])
def test_objectives_train_compiled_in_half_precision(tmp_path, names):
    """Blocks of many positions take FlexAttention, inside compiled layers too."""
    curves = []
    half = EngineConfig(device="cuda", precision="autocast", compile=True)
    for engine in (EngineConfig(device="cuda"), half):
        config = tiny_run(
            tmp_path,
            engine=engine,
            data=tiny_data(tmp_path, row_length=256),
            run_dir=str(tmp_path / f"run_{len(curves)}"),
            model=wide_model(*names),
        )
        train(config, draw=lambda *_: None, save=lambda *_: None)
        lines = map(json.loads, Path(config.run_dir, "log.jsonl").read_text().splitlines())
        heads = ("text", *names) if len(names) == 1 else ("text",)  # of many, not all in each step
        found = [[x[head] for head in heads] for x in lines if "learning_rate" in x]
        curves.append(torch.tensor(found))
    assert torch.allclose(*curves, atol=0.1)
    assert curves[0][-1, 0] < curves[0][0, 0] - 0.5


@pytest.mark.parametrize("is_offloaded", [False, True])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_zero_stages_agree(tmp_path, stage, is_offloaded):
    if stage == 0 and is_offloaded:
        return
    exact = engine_run(tmp_path, "exact")
    found = engine_run(tmp_path, "zero", zero_stage=stage, offload_optimizer=is_offloaded)
    assert torch.allclose(found, exact, atol=1e-3)


@pytest.mark.parametrize("stages", [(1, 3), (3, 2), (2, 0)])
def test_a_run_goes_on_in_another_stage(tmp_path, stages):
    """With AdamW's fused kernel, whose count of steps lies on the GPU."""
    logging = LoggingConfig(log_every=1, evaluate_every=0, sample_every=0, save_every=3)
    for stage in stages:
        config = tiny_run(
            tmp_path,
            engine=EngineConfig(device="cuda", zero_stage=stage),
            data=tiny_data(tmp_path, row_length=256),
            model=wide_model(),
            logging=logging,
        )
        found = losses(config)
        if stage == stages[0]:
            shutil.rmtree(Path(config.run_dir, "checkpoints", "step_00000006"))
    assert len(found) == 9 and torch.allclose(found[3:6], found[6:], atol=1e-3)


@pytest.mark.parametrize(
    "engine",
    [
        dict(precision="autocast"),
        dict(precision="autocast", compile=True),
        dict(precision="bfloat16", zero_stage=1),
        dict(precision="bfloat16", zero_stage=1, compile=True),
        dict(precision="bfloat16", zero_stage=3, compile=True),
        dict(precision="autocast", zero_stage=3, compile=True, checkpoint_activations=True),
    ],
)
def test_half_precision_follows_float32(tmp_path, engine):
    exact = engine_run(tmp_path, "exact")
    half = engine_run(tmp_path, "half", **engine)
    assert torch.allclose(half, exact, atol=0.1)  # bfloat16 weights keep 8 bits
    assert exact[-1, 0] < exact[0, 0] - 0.5


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_compiled_layers_serve_every_batch(name):
    """Masks change from batch to batch; compiling anew for each would take longer than the step."""
    model = tiny_model(name, dim=64, num_heads=2, num_kv_heads=2).cuda()
    model.bind(tiny_image_tokenizer().cuda())
    for layer in model.backbone.layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)  # as the engine does
    exact = tiny_model(name, dim=64, num_heads=2, num_kv_heads=2).cuda()
    exact.bind(tiny_image_tokenizer().cuda())
    for step in range(5):
        rows = [[random_story(step + 9 * row, num_pages=1 + step % 2)] for row in range(2)]
        batch = packed(tiny_objective(name), rows, row_length=256).to("cuda")
        with torch.compiler.set_stance("fail_on_recompile" if step > 2 else "default"):
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(batch).total
            loss.backward()
        with torch.no_grad():
            expected = exact(batch, backend="dense").total
        assert float(loss) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("recipe", ["storyworld", "storyworld_masked", "storyworld_diffusion"])
def test_a_compiled_step_takes_what_the_planner_says(recipe):
    """On one GPU, 8 rows of 4,608 positions; the denoiser's blocks are compiled."""
    planner = recipe_planner(recipe, device="cuda")
    engine = planner.config.engine
    measured = measure_peak(planner, engine, micro_rows=8, device=choose_device("cuda"))
    estimated = planner.memory(engine, num_gpus=1, micro_rows=8).total
    assert estimated == pytest.approx(measured, rel=0.1)
