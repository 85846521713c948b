"""Denoisers start as zero, keep times apart, use what they are told, and show their features."""

from typing import get_args

import pytest
import torch
from torch import nn

from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.nn.dit_blocks import Conditioning
from unimm.nn.embeddings import TimeEmbedding, ZeroLinear, from_patches, to_patches

ALL = get_args(Conditioning)


def make(conditioning, **changes) -> Denoiser:
    torch.manual_seed(0)
    sizes = {"dim": 32, "depth": 3, "num_heads": 2, "patch_size": 2} | changes
    return Denoiser(
        DenoiserConfig(conditioning=conditioning, **sizes), latent_dim=5, context_dim=12
    )


def inputs(batch=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, 5, 8, 8, generator=generator),
        torch.rand(batch, generator=generator),
        torch.randn(batch, 16, 12, generator=generator),
    )


def is_identity(block: nn.Module, dim: int = 32) -> bool:
    x, context, condition = torch.randn(3, 2, 16, dim).unbind(0)
    found, told = block(x, context, condition)
    return torch.equal(found, x) and torch.equal(told, context)


def trained(model: Denoiser, steps: int = 4) -> set[str]:
    """Take a few steps towards noise; names of parameters that a gradient reached."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    reached: set[str] = set()
    x, t, context = inputs()
    for _ in range(steps):
        scalars = torch.rand(3, model.config.num_scalars) if model.config.num_scalars else None
        loss = (model(x, t, context, scalars=scalars).velocity - torch.randn(x.shape)).square()
        optimizer.zero_grad()
        loss.mean().backward()
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return reached


@pytest.mark.parametrize("conditioning", ALL)
def test_the_output_is_exactly_zero_at_first(conditioning):
    found = make(conditioning)(*inputs()).velocity
    assert found.shape == (3, 5, 8, 8) and found.dtype == torch.float32
    assert not found.any()


@pytest.mark.parametrize("conditioning", ["adaln_zero", "mmdit", "per_token", "cross_attn"])
def test_blocks_are_identities_also_after_every_layer_was_reset(conditioning):
    model = make(conditioning)
    assert all(map(is_identity, model.blocks))
    trained(model)
    assert not any(map(is_identity, model.blocks))
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            module.reset_parameters()
    assert all(map(is_identity, model.blocks))
    assert not model(*inputs()).velocity.any()


@pytest.mark.parametrize("conditioning", ALL)
def test_gradients_reach_every_parameter(conditioning):
    """Four steps: each zeroed layer hides what lies behind it for one."""
    model = make(conditioning, num_scalars=2)
    assert trained(model, 5) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("conditioning", ALL)
def test_a_trained_denoiser_uses_time_and_context(conditioning):
    model = make(conditioning)
    trained(model, 5)
    x, t, context = inputs()
    found = model(x, t, context).velocity
    assert not torch.allclose(found, model(x, 1 - t, context).velocity, atol=1e-4)
    other = context.clone()
    other[:, 0] += 1.0
    changed = (model(x, t, other).velocity - found).abs().amax((0, 1)) > 1e-6  # (h, w)
    assert bool(changed[:2, :2].all())
    assert bool(changed[2:].any()) == (conditioning != "per_token")


@pytest.mark.parametrize("conditioning", ALL)
def test_pictures_do_not_mix(conditioning):
    model = make(conditioning)
    trained(model, 5)
    x, t, context = inputs()
    alone = model(x[1:2], t[1:2], context[1:2]).velocity
    torch.testing.assert_close(model(x, t, context).velocity[1:2], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("conditioning", ALL)
def test_features_on_request(conditioning):
    model = make(conditioning)
    trained(model, 5)
    denoised = model(*inputs(), layers=(-1, 0))
    last, first = denoised.features
    assert first.shape == last.shape == (3, 32, 4, 4)
    assert not torch.equal(first, last)
    assert torch.equal(denoised.velocity, model(*inputs()).velocity)
    assert model(*inputs()).features == ()


@pytest.mark.parametrize("conditioning", ALL)
def test_matrices_that_lie_together_compute_save_and_learn_the_same(conditioning):
    model = make(conditioning)
    trained(model)
    expected = model(*inputs()).velocity
    before = {name: x.clone() for name, x in model.state_dict().items()}
    model.lay_together()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(model(*inputs()).velocity, expected)
    assert trained(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_thousand_times_give_a_thousand_embeddings(dtype):
    torch.manual_seed(0)
    embedding = TimeEmbedding(64).to(dtype)
    t = torch.arange(1, 1001, dtype=torch.float32) / 1000
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.float32):
        found = embedding(t)
    assert found.dtype == torch.bfloat16
    assert len(torch.unique(found, dim=0)) == 1000
    assert len(torch.unique(embedding(t.bfloat16().float()), dim=0)) < 600  # what rounding costs


def test_half_precision_times_are_refused():
    with pytest.raises(AssertionError, match="float32"):
        TimeEmbedding(8)(torch.rand(3).bfloat16())


def test_scalars_change_the_picture():
    model = make("adaln_zero", num_scalars=2)
    trained(model)
    scalars = torch.tensor([[128.0, 0.0]]).expand(3, 2)
    first = model(*inputs(), scalars=scalars).velocity
    assert not torch.equal(first, model(*inputs(), scalars=scalars + 30).velocity)


def test_bfloat16_weights_take_float32_latents():
    model = make("mmdit").bfloat16()
    assert model(*inputs()).velocity.dtype == torch.float32


def test_adaln_single_saves_the_modulation_of_every_block():
    """Per block 6 D^2 of modulation become 6 D: a fifth of the parameters, as published."""
    kinds: tuple[Conditioning, ...] = ("cross_attn", "adaln_single")
    sizes = [sum(p.numel() for p in make(kind, depth=28, dim=64).parameters()) for kind in kinds]
    assert sizes[1] < 0.8 * sizes[0]


def test_patches_are_raster_and_invert():
    x = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    patches = to_patches(x, 2)
    assert patches.shape == (2, 6, 12)
    assert torch.equal(patches[1, 4].view(3, 2, 2), x[1, :, 2:4, 2:4])
    assert torch.equal(from_patches(patches, 2, 4), x)


def test_zero_layers_are_zero_when_built_and_when_reset():
    layer = ZeroLinear(3, 4)
    nn.init.ones_(layer.weight)
    layer.reset_parameters()
    assert not layer.weight.any() and not layer.bias.any()


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="dim 30 must be a multiple of num_heads 4"):
        DenoiserConfig(dim=30, num_heads=4)
    with pytest.raises(ValueError, match="depth 0"):
        DenoiserConfig(depth=0)
