"""The planner's bytes beside those of real steps under DeepSpeed, and what it advises."""

from dataclasses import replace

import pytest
import torch
from corpora import recipe_planner, tiny_run
from helpers import SPECIAL, tiny_image_tokenizer, tiny_objective
from torch._subclasses.fake_tensor import FakeTensorMode

from unimm.model import ModelConfig, UniMM
from unimm.nn import cross_entropy
from unimm.nn.cross_entropy import token_losses
from unimm.nn.transformer import BackboneConfig
from unimm.objectives import OBJECTIVES
from unimm.training import engine as engine_module
from unimm.training import gpu_kernels
from unimm.training import memory as memory_module
from unimm.training.config import EngineConfig
from unimm.training.engine import choose_device
from unimm.training.footprint import LiveBytes, _backward
from unimm.training.measure import measure_peak
from unimm.training.plan_page import describe_plan
from unimm.training.planner import Cluster, Planner

WIDE = BackboneConfig(dim=256, depth=2, num_heads=4, num_kv_heads=4, ffn_dim=704)
BUCKET = 1_000_000


def make_planner(tmp_path, name="next_token", *, backbone=None, **changes):
    config = tiny_run(tmp_path, **changes)
    backbone = backbone or config.model.backbone
    model = ModelConfig(backbone=backbone, objectives=(tiny_objective(name),))
    return Planner(
        replace(config, model=model),
        special=SPECIAL,
        image_tokenizer=tiny_image_tokenizer(),
        image_size=16,
        text_tokens=8,
    )


QUICK = [
    dict(zero_stage=1, precision="bfloat16", checkpoint_activations=True),
    dict(zero_stage=3, precision="bfloat16"),
]
SLOW = [dict(zero_stage=stage) for stage in (0, 1, 2, 3)]
SLOW += [dict(zero_stage=stage, precision="autocast") for stage in (0, 1, 2)]
SLOW += [dict(zero_stage=stage, precision="bfloat16") for stage in (1, 2)]
SETTINGS = [*QUICK, *(pytest.param(settings, marks=pytest.mark.long) for settings in SLOW)]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_estimated_peaks_are_within_a_tenth_of_measured_ones(tmp_path, monkeypatch, settings):
    for module in (engine_module, memory_module):
        monkeypatch.setattr(module, "REDUCE_BUCKET_SIZE", BUCKET)  # else it is all that counts
    planner = make_planner(tmp_path, backbone=WIDE)
    engine = EngineConfig(device="cpu", **settings)
    estimated = planner.memory(engine, num_gpus=1, micro_rows=2).total
    measured = measure_peak(planner, engine, micro_rows=2, device=choose_device("cpu"))
    assert estimated == pytest.approx(measured, rel=0.1)


# Peaks that torch.cuda.max_memory_allocated gave, in 1e9 bytes, for steps of the planner's batches
# (``measure_peak``) on one H200, 2026-11-27, PyTorch 2.11: 16 rows of 4,608 positions, autocast,
# ZeRO 0, layers of the trunk compiled, the denoiser not.
ON_H200 = {
    # objective: configuration, peak, text ids before each picture
    "next_token": ("storyworld", 10.526, 95),
    "masked": ("storyworld_masked", 10.158, 60),
    "next_scale": ("storyworld_next_scale", 10.124, 64),
    "transfusion": ("storyworld_transfusion", 9.876, 60),
    "diffusion": ("storyworld_diffusion", 18.046, 60),
}


@pytest.mark.parametrize(
    "name", [x if x == "diffusion" else pytest.param(x, marks=pytest.mark.long) for x in ON_H200]
)
def test_estimates_are_what_a_gpu_held(monkeypatch, name):
    recipe, peak, text_tokens = ON_H200[name]
    draws = ["--model.objectives.0.num_draws", "4"] if name == "diffusion" else []
    planner = recipe_planner(recipe, *draws, text_tokens=text_tokens)
    monkeypatch.setattr(UniMM, "repeated_blocks", lambda model: iter(model.backbone.layers))
    engine = planner.config.engine
    estimated = planner.memory(engine, num_gpus=1, micro_rows=16).total / 1e9
    assert estimated == pytest.approx(peak, rel=0.035)  # a term that is missing must show


def test_the_estimate_of_a_compiled_denoiser_is_what_a_gpu_held():
    """As those above, but with blocks compiled and 8 draws."""
    draws = ["--model.objectives.0.num_draws", "8"]
    planner = recipe_planner("storyworld_diffusion", *draws, text_tokens=60)
    memory = planner.memory(planner.config.engine, num_gpus=1, micro_rows=16)
    assert memory.total / 1e9 == pytest.approx(21.766, rel=0.02)


@pytest.fixture
def float32_losses(monkeypatch):
    """The loss of runs from before it had a kernel: PyTorch's, of float32 logits."""
    monkeypatch.setattr(gpu_kernels, "losses_by_kernel", cross_entropy._losses)


# Peaks in GiB of ``train/scaling_h100.sh`` on H200, 2026-11-27: compiled, 10 rows a GPU.
TRUNK_ON_H200 = [(1, 1, 37.9), (1, 3, 39.32), (2, 1, 32.73), (2, 2, 32.73), (2, 3, 34.15)]


@pytest.mark.long
@pytest.mark.usefixtures("float32_losses")
def test_estimates_of_a_trunk_of_700m_are_what_gpus_held():
    sizes = {"dim": 1536, "depth": 24, "num_heads": 12, "num_kv_heads": 12, "ffn_dim": 4096}
    settings = {f"model.backbone.{key}": value for key, value in sizes.items()}
    settings |= {"data.row_length": 2048, "engine.precision": "bfloat16", "engine.zero_stage": 1}
    flags = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    planner = recipe_planner("storyworld", *flags, text_tokens=90)
    for num_gpus, stage, peak in TRUNK_ON_H200:
        engine = replace(planner.config.engine, zero_stage=stage)
        memory = planner.memory(engine, num_gpus=num_gpus, micro_rows=10)
        assert memory.total / 2**30 == pytest.approx(peak, rel=0.02), (num_gpus, stage)


def test_parameters_are_the_models_own(tmp_path):
    planner = make_planner(tmp_path)
    model = planner.make_model()
    assert type(model) is UniMM
    assert planner.num_parameters == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "name",
    [
        name if name == "transfusion" else pytest.param(name, marks=pytest.mark.long)
        for name in sorted(OBJECTIVES)
    ],
)
def test_every_objective_can_be_planned(tmp_path, name):
    planner = make_planner(tmp_path, name)
    plain = planner.memory(EngineConfig(), num_gpus=1, micro_rows=1)
    double = planner.memory(EngineConfig(), num_gpus=1, micro_rows=2)
    assert plain.activations < double.activations < 2.5 * plain.activations


def test_what_saves_activations_saves_them_in_the_plan(tmp_path):
    planner = make_planner(tmp_path, backbone=WIDE)

    def activations(**engine):
        config = EngineConfig(**engine)
        return planner.memory(config, num_gpus=1, micro_rows=4).activations

    assert activations(checkpoint_activations=True) < 0.65 * activations()
    assert activations(precision="autocast") < 0.9 * activations()
    shared = activations(sequence_ranks=2)
    assert 0.5 * activations() < shared < 0.75 * activations(), "the heads see whole rows"
    compiled = activations(precision="autocast", compile=True)
    assert 0.3 < compiled / activations() < 0.9


def test_losses_on_a_gpu_add_only_the_gradient_of_the_logits():
    fake, live = FakeTensorMode(), LiveBytes()
    with fake:
        logits = torch.empty(100, 5000, dtype=torch.bfloat16, requires_grad=True)
        labels = torch.empty(100, dtype=torch.int64)
    with fake, live, gpu_kernels.GpuKernels(is_mixed=True, counting=live.counting):
        _backward(token_losses(logits, labels).sum())
    assert live.peak == pytest.approx(logits.nbytes, rel=0.01)


def test_blocks_of_a_denoiser_are_compiled_too(tmp_path):
    planner = make_planner(tmp_path, "diffusion")
    blocks = list(planner.make_model().repeated_blocks())
    assert len(blocks) > planner.config.model.backbone.depth
    compiled, plain = (
        planner.memory(
            EngineConfig(precision="autocast", compile=x), num_gpus=1, micro_rows=4
        ).activations
        for x in (True, False)
    )
    assert compiled < 0.9 * plain


def test_shares_shrink_with_the_ranks(tmp_path):
    planner = make_planner(tmp_path)

    def memory(stage, num_gpus):
        engine = EngineConfig(zero_stage=stage)
        return planner.memory(engine, num_gpus=num_gpus, micro_rows=1)

    number = planner.num_parameters
    assert memory(0, 8).optimizer == 8 * number and memory(0, 8).average == 4 * number
    assert memory(1, 8).optimizer == 12 * number / 8 and memory(1, 8).parameters == 4 * number
    assert memory(3, 8).parameters == 4 * number / 8


def test_what_does_not_fit_is_named_with_what_would(tmp_path):
    planner = make_planner(tmp_path, backbone=WIDE)
    own = planner.memory(planner.config.engine, num_gpus=2, micro_rows=2)
    roomy, tight = (Cluster(num_gpus=2, gpu_bytes=x * own.total) for x in (1.2, 1.05))
    assert "This run fits." in describe_plan(planner, roomy)
    text = describe_plan(planner, tight)
    assert "This run does not fit" in text and "most of it are " in text
    ways = dict(planner.ways_to_fit(tight, micro_rows=2))
    assert "data.micro_rows 1" in ways, text
    assert all(memory.total <= 0.92 * tight.gpu_bytes for memory in ways.values())
    assert "data.micro_rows 1" in text
    tiny = Cluster(num_gpus=2, gpu_bytes=own.total / 50)
    assert "a smaller model only" in describe_plan(planner, tiny)


def test_speed_follows_the_assumptions(tmp_path):
    planner = make_planner(tmp_path, backbone=WIDE)
    engine = EngineConfig()
    slow = planner.speed(engine, Cluster(num_gpus=1, mfu=0.2), micro_rows=4)
    fast = planner.speed(engine, Cluster(num_gpus=1, mfu=0.4), micro_rows=4)
    assert fast.tokens_per_second == pytest.approx(2 * slow.tokens_per_second)
    assert slow.communication == 0
    assert planner.speed(engine, Cluster(num_gpus=2), micro_rows=2).communication > 0.5
    expected = planner.config.max_steps * slow.step_seconds / 86400
    assert slow.days == pytest.approx(expected)
    recomputed = planner.speed(
        EngineConfig(checkpoint_activations=True), Cluster(num_gpus=1, mfu=0.2), micro_rows=4
    )
    assert recomputed.step_seconds == pytest.approx(4 / 3 * slow.step_seconds)


def test_rows_that_cannot_be_shared_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows_per_step 4 is not a multiple"):
        describe_plan(make_planner(tmp_path), Cluster(num_gpus=64))


def test_documents_longer_than_a_row_are_refused(tmp_path):
    planner = make_planner(tmp_path)
    planner._text_tokens = torch.iinfo(torch.int16).max
    with pytest.raises(ValueError, match="more than a row of 192"):
        planner.batch(1)
