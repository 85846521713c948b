import pytest
import torch
from diffusers_folders import KINDS, save_diffusers_folder
from pipelines import tiny_pipeline

from unimm.diffusion.path import add_noise
from unimm.generation import generate_image
from unimm.objectives import OBJECTIVES
from unimm.probes.features import (
    FeatureSpec,
    extract_features,
    feature_maps,
    load_feature_model,
)
from unimm.probes.sources import pipeline_features, tell
from unimm.probes.spec import shared_noise


def pixels(count: int = 3, side: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def pipelines():
    return {name: tiny_pipeline(name) for name in OBJECTIVES}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("source", ["denoiser", "trunk", "encoder", "pixels"])
def test_every_source_gives_a_grid(pipelines, objective, source):
    model = pipeline_features(pipelines[objective])
    if source not in model.sources:
        assert source == "denoiser" and objective not in ("diffusion", "transfusion")
        with pytest.raises(ValueError, match="has no source 'denoiser'; it has trunk"):
            extract_features(pipelines[objective], pixels())
        return
    spec = FeatureSpec(source=source, layer=0)
    found = extract_features(pipelines[objective], pixels(), spec)
    assert found.ndim == 4 and found.shape[0] == 3 and found.shape[2] == found.shape[3] > 1
    assert found.isfinite().all() and found.std() > 0
    # Pictures do not change each other's features, and each has its own.
    alone = extract_features(pipelines[objective], pixels()[1:2], spec)
    assert torch.allclose(alone, found[1:2], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found[0], found[1], atol=1e-2)
    pooled = extract_features(
        pipelines[objective], pixels(), FeatureSpec(source=source, layer=0, pool="mean")
    )
    assert torch.allclose(pooled, found.mean((2, 3), keepdim=True), atol=1e-5)


def test_denoiser_features_are_the_heads_own(pipelines):
    """After noise of that share and seed, told what the trunk says of the text."""
    pipeline = pipelines["diffusion"]
    head = pipeline.model.objective("diffusion")
    found = feature_maps(
        pipeline, pixels(), FeatureSpec(timestep=0.3, noise_seed=5, condition="mia"), (0, -1)
    )
    latents = pipeline.image_tokenizer.encode(pixels()).latents
    x0 = head.space.standardise(latents)
    noise = shared_noise(x0.shape[1:], 5, x0.device)
    told = tell(pipeline, head, ["mia"]).expand(3, -1, -1)
    t = torch.full((3,), 0.3)
    wanted = head.denoiser(add_noise(x0, noise, t), t, told, layers=(0, 1)).features
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, wanted, strict=True))
    null = feature_maps(pipeline, pixels(), FeatureSpec(timestep=0.3, noise_seed=5), (-1,))
    assert not torch.allclose(null[0], found[1], atol=1e-3)


def test_what_the_trunk_tells_is_what_generation_hears(pipelines):
    """The hidden states that the engine gives the sampler for the same caption."""

    pipeline = pipelines["diffusion"]
    head = pipeline.model.objective("diffusion")
    told = tell(pipeline, head, ["mia the fox"])
    heard: list[torch.Tensor] = []
    handle = head.denoiser.register_forward_hook(lambda m, args, out: heard.append(args[2]))
    generate_image(pipeline, "mia the fox", seed=0, guidance_scale=1.0, num_steps=1)
    handle.remove()
    assert torch.allclose(heard[0][:1], told, atol=1e-4)


def test_noises_are_averaged(pipelines):
    one, two = (FeatureSpec(timestep=0.4, noise_seed=s) for s in (0, 1))
    both = FeatureSpec(timestep=0.4, num_noises=2)
    a, b, mean = (extract_features(pipelines["diffusion"], pixels(), x) for x in (one, two, both))
    assert torch.allclose((a + b) / 2, mean, atol=1e-5)
    assert not torch.allclose(a, b, atol=1e-3)


@pytest.mark.parametrize("source", ["denoiser", "trunk", "encoder"])
def test_a_network_at_random_is_another_one(pipelines, source):
    model = pipeline_features(pipelines["diffusion"])
    spec = FeatureSpec(source=source)
    old = torch.random.get_rng_state()
    first, second = model.randomise(source, 1), model.randomise(source, 1)
    assert torch.equal(torch.random.get_rng_state(), old)
    a, b, c = (extract_features(x, pixels(), spec) for x in (model, first, second))
    assert torch.equal(b, c) and a.shape == b.shape
    assert not torch.allclose(a, b, atol=1e-2)
    assert not torch.allclose(b[0], b[1], atol=1e-3)


def test_wrong_requests_are_named(pipelines):
    with pytest.raises(ValueError, match="layer 7 does not exist: this source has 2 layers"):
        extract_features(pipelines["diffusion"], pixels(), FeatureSpec(layer=7))
    with pytest.raises(ValueError, match="timestep 1"):
        FeatureSpec(timestep=1.0)
    with pytest.raises(ValueError, match=r"must lie in \[-1, 1\]"):
        extract_features(pipelines["diffusion"], pixels() * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_folders_are_a_source(kind, tmp_path):
    model = load_feature_model(save_diffusers_folder(tmp_path, kind), device="cpu")
    assert model.image_size == 32
    count = model.sources["denoiser"].num_layers
    low, high = (
        feature_maps(model, pixels(2, 32), FeatureSpec(timestep=t), range(count))
        for t in (0.02, 0.6)
    )
    assert len(low) == count and all(x.shape[0] == 2 and x.isfinite().all() for x in low)
    assert low[-1].shape[-1] == (8 if kind == "unet" else 4)
    assert not torch.allclose(low[-1], high[-1], atol=1e-3)
    fresh = model.randomise("denoiser", 1)
    other = extract_features(fresh, pixels(2, 32), FeatureSpec(timestep=0.02))
    assert other.shape == low[-1].shape and not torch.allclose(other, low[-1], atol=1e-2)
    with pytest.raises(ValueError, match="no model_index"):
        extract_features(model, pixels(2, 32), FeatureSpec(condition="a fox"))


def test_other_diffusers_networks_are_refused(tmp_path):
    save_diffusers_folder(tmp_path, "dit")
    config = tmp_path / "transformer" / "config.json"
    config.write_text(config.read_text().replace("DiTTransformer2DModel", "OtherModel"))
    with pytest.raises(ValueError, match="holds a OtherModel; known are UNet2DConditionModel"):
        load_feature_model(tmp_path)


def test_of_a_joint_model_the_objective_that_denoises_is_probed(tmp_path):
    tiny_pipeline("masked", "diffusion").save_pretrained(tmp_path)
    for model in (found := load_feature_model(tmp_path, device="cpu"), found.randomise("trunk", 1)):
        assert model.pipeline is not None and model.pipeline.drawing.name == "diffusion"
        assert extract_features(model, pixels(), FeatureSpec()).shape[2:] == (4, 4)
    asked = load_feature_model(tmp_path, device="cpu", objective="masked")
    assert asked.pipeline is not None and asked.pipeline.drawing.name == "masked"
    assert "denoiser" not in asked.sources
    with pytest.raises(ValueError, match="not by 'next_scale'"):
        load_feature_model(tmp_path, device="cpu", objective="next_scale")
