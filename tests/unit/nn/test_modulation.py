"""Sums left to the next norm and modulations in joined products change nothing but the kernels."""

import weakref
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from unimm.nn import modulation
from unimm.nn.adjacent import lay_together
from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.nn.dit_blocks import Conditioning
from unimm.nn.modulation import EPS, Modulation, Residual, joined_modulations

ALL = get_args(Conditioning)
BLOCK_BYTES = 3 * 16 * 6 * 32 * 4
"""Of one block's modulation: places, numbers a place, bytes a number."""


def make(conditioning) -> Denoiser:
    torch.manual_seed(0)
    config = DenoiserConfig(dim=32, depth=3, num_heads=2, patch_size=2, conditioning=conditioning)
    model = Denoiser(config, latent_dim=5, context_dim=12).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def seen(model: Denoiser) -> tuple[torch.Tensor, ...]:
    """Velocity and features."""
    generator = torch.Generator().manual_seed(1)
    x, told = (torch.randn(3, *shape, generator=generator) for shape in ((5, 8, 8), (16, 12)))
    found = model(x, torch.rand(3, generator=generator), told, layers=(-1, 0, 1))
    return found.velocity, *(x.contiguous() for x in found.features)


@pytest.fixture
def groups(monkeypatch):
    """Modules of each product that was computed."""
    counts: list[int] = []
    real = modulation.products

    def counted(x, weights, biases):
        counts.append(len(weights))
        return real(x, weights, biases)

    monkeypatch.setattr(modulation, "products", counted)
    return counts


@pytest.mark.parametrize("conditioning", ALL)
@pytest.mark.parametrize("most_bytes", [0, 2 * BLOCK_BYTES, 2**30])
def test_inference_sees_what_training_sees(conditioning, most_bytes, monkeypatch, groups):
    monkeypatch.setattr(modulation, "MOST_BYTES", most_bytes)
    model = make(conditioning)
    expected = [x.detach() for x in seen(model)]
    assert not groups
    for is_together in (False, True):
        if is_together:
            model.lay_together()
        with torch.inference_mode():
            for found, wanted in zip(seen(model), expected, strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    count = sum(isinstance(module, Modulation) for module in model.modules())
    assert sum(groups) == 2 * count
    assert set(groups) <= ({1} if most_bytes == 0 else {1, 2, count})
    if most_bytes == 2**30:
        assert groups == ([count, count] if count else [])


@pytest.mark.parametrize("conditioning", ALL)
def test_no_gradient_takes_the_way_of_inference(conditioning, groups):
    """A model in training mode, or one whose gradient is asked for, keeps its blocks whole."""
    model = make(conditioning)
    gradients = []
    for is_together in (False, True):
        if is_together:
            model.lay_together()
        model.zero_grad()
        torch.stack([x.square().mean() for x in seen(model)]).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, wanted in gradients[0].items():
        assert wanted is not None and torch.equal(gradients[1][name], wanted), name
    with torch.no_grad():
        seen(model.train())
    assert not groups


@pytest.mark.parametrize("conditioning", ["adaln_zero", "per_token", "mmdit"])
def test_weights_that_lie_together_are_saved_and_loaded(conditioning, tmp_path):
    model, other = make(conditioning), make(conditioning)
    for parameter in other.parameters():
        parameter.data.mul_(0.5)
    model.lay_together()
    other.lay_together()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    linears = [x.linear for x in other.modules() if isinstance(x, Modulation)]
    assert len({x.weight.untyped_storage().data_ptr() for x in linears}) == 1
    with torch.inference_mode():
        for found, wanted in zip(seen(other), seen(model), strict=True):
            assert torch.equal(found, wanted)


@torch.no_grad()
def test_a_group_is_computed_when_it_is_asked_for_and_held_no_longer(monkeypatch):
    made: list[weakref.ref] = []
    real = modulation.products

    def watched(*given):
        found = real(*given)
        made.extend(weakref.ref(x) for x in found)
        return found

    monkeypatch.setattr(modulation, "products", watched)
    modules = [Modulation(8, count) for count in (6, 2, 6, 20, 3)]
    lay_together([module.linear for module in modules])
    for module in modules:
        module.linear.weight.normal_()
    condition = torch.randn(2, 5, 8)
    monkeypatch.setattr(modulation, "MOST_BYTES", 2 * 5 * 8 * 4 * 8)  # eight numbers of 8 a place
    given = joined_modulations(modules, condition)
    assert not made
    for module, num_made, num_held in zip(modules, (2, 2, 3, 4, 5), (2, 2, 1, 1, 1), strict=True):
        found = next(given)
        assert len(made) == num_made and sum(x() is not None for x in made) == num_held
        assert len(found) == module.count
        torch.testing.assert_close(found, module(condition))
        del found
    assert next(given, None) is None


def test_modulations_with_gradients_are_refused():
    with pytest.raises(AssertionError, match="no gradient"):
        next(joined_modulations([Modulation(8, 2)], torch.randn(1, 1, 8)))


@pytest.mark.parametrize("is_gated", [True, False])
def test_a_stream_adds_before_it_is_read(is_gated):
    torch.manual_seed(0)
    x, first, second, shift, scale, gate = torch.randn(6, 2, 5, 8)
    stream = Residual(x)
    stream.add(first, gate if is_gated else None)
    stream.add(second)
    expected = x + (gate * first if is_gated else first) + second
    normed = functional.layer_norm(expected, (8,), eps=EPS) * (1 + scale) + shift
    for _ in range(2):  # once added, it stays so
        torch.testing.assert_close(stream.modulate(shift, scale), normed)
        torch.testing.assert_close(stream.sum(), expected)
    stream.add(first, gate if is_gated else None)
    stream.keep(3)
    expected = (expected + (gate * first if is_gated else first))[:, :3]
    torch.testing.assert_close(stream.sum(), expected)
