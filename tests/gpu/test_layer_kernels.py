"""Layers by our kernels against the same layers without; TRITON_INTERPRET=1 runs them on a CPU."""

from dataclasses import replace

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from random_rows import random_rows
from torch.nn import functional

from unimm.nn import add_norm
from unimm.nn import joined_attention as own
from unimm.nn.attention import batch_visibility
from unimm.nn.rope import rope_cos_sin
from unimm.nn.swiglu import swiglu
from unimm.nn.transformer import Backbone, BackboneConfig

pytestmark = KERNEL_MARKS
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 4e-2}
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16  # interpreted, bfloat16 is read wrongly
CONFIG = BackboneConfig(dim=48, depth=2, num_heads=3, num_kv_heads=1, head_dim=32, ffn_dim=40)


def model_of(config):
    torch.manual_seed(0)
    model = Backbone(config).to(DEVICE)
    for weight in model.parameters():
        with torch.no_grad():  # larger than the first steps' weights: scores that differ
            weight.add_(0.3 * torch.randn_like(weight)) if weight.ndim == 1 else weight.mul_(6)
    return model


def run(model, batch, backend, dtype):
    """Hidden states and the gradients of input and weights, float32."""
    model = model.to(dtype)
    torch.manual_seed(1)
    x = torch.randn(*batch.input_ids.shape, model.config.dim).to(DEVICE, dtype).requires_grad_()
    visibility = batch_visibility(batch, backend, head_width=model.config.head_width)
    position_ids = torch.randint(0, 90, (*batch.input_ids.shape, 3)).to(DEVICE)
    out = model(x, position_ids, visibility)
    weight = torch.randn(out.shape).to(DEVICE, dtype)
    names, weights = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(out, (x, *weights), weight)
    named = zip(("out", "x", *names), (out, *found), strict=True)
    return {name: value.detach().float() for name, value in named}


@pytest.fixture
def few_heads_at_once(monkeypatch):
    """Several programs, each with several blocks, none of which is full."""
    monkeypatch.setattr(own, "ROTATION", (1024, 4))
    monkeypatch.setattr(own, "PROGRAMS", 3)
    monkeypatch.setattr(add_norm, "PROGRAMS", 3)


@pytest.mark.usefixtures("few_heads_at_once")
@pytest.mark.parametrize("is_joined", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_qk_norm": False},
        {"num_kv_heads": 3, "head_dim": 24},
        {"num_heads": 2, "num_kv_heads": 2, "head_dim": 64},
    ],
)
@pytest.mark.parametrize("is_causal", [True, False])
def test_layers_equal_those_without_our_kernels(changes, is_causal, dtype, is_joined):
    batch = random_rows(70, is_causal=is_causal).to(DEVICE)
    model = model_of(replace(CONFIG, **changes))
    expected = run(model, batch, "dense", torch.float32)
    if is_joined:
        model.join_products()
    found = run(model, batch, "spans", dtype)
    for name, reference in expected.items():
        assert reference.std() > 1e-3, name
        error = float((found[name] - reference).norm() / reference.norm())
        assert error < TOLERANCE[dtype], (name, error)


@pytest.mark.parametrize("shape", [(2, 5, 96), (1, 1, 9000), (0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_swiglu_and_its_gradient(shape, dtype):
    torch.manual_seed(0)
    joined = (3 * torch.randn(shape)).to(DEVICE, dtype).requires_grad_()
    exact = joined.detach().float().requires_grad_()
    gate, up = exact.chunk(2, dim=-1)
    expected = functional.silu(gate) * up
    found = swiglu(joined)
    weight = torch.randn(found.shape).to(DEVICE)
    assert found.dtype == dtype
    (given,) = torch.autograd.grad(found, joined, weight.to(dtype))
    (wanted,) = torch.autograd.grad(expected, exact, weight.to(dtype).float())
    absolute, relative = (1e-5, 1e-5) if dtype == torch.float32 else (0.05, 0.01)
    torch.testing.assert_close(found.float(), expected, atol=absolute, rtol=relative)
    torch.testing.assert_close(given.float(), wanted, atol=absolute, rtol=relative)


@pytest.mark.parametrize("shape", [(600, 2, 24), (1, 40)])
def test_sums_of_what_programs_found(shape):
    from unimm.nn.layer_kernels import sum_rows

    found = torch.randn(shape, device=DEVICE)
    torch.testing.assert_close(sum_rows(found), found.double().sum(0).float())


def test_results_repeat_to_the_bit():
    batch = random_rows(70).to(DEVICE)
    model = model_of(CONFIG)
    first, second = (run(model, batch, "spans", HALF) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.skipif(IS_INTERPRETED, reason="the compiler makes kernels for a GPU")
@pytest.mark.parametrize("is_mixed", [True, False])
def test_compiled_layers_equal_eager_ones(is_mixed):
    """One product for all matrices that read the same, where the eager layer has several."""
    torch.compiler.reset()
    batch, dtype = random_rows(150).to(DEVICE), torch.float32 if is_mixed else HALF
    model = model_of(CONFIG)
    with torch.autocast(DEVICE, HALF, enabled=is_mixed):
        expected = run(model, batch, "spans", dtype)
        model.join_products()
        for layer in model.layers:
            layer.forward = torch.compile(layer.forward, dynamic=False, fullgraph=True)
        found = run(model, batch, "spans", dtype)
    for name, reference in expected.items():
        error = float((found[name] - reference).norm() / reference.norm())
        assert error < TOLERANCE[HALF], (name, error)


def test_positions_turn_as_rope_does():
    """Alone, without norms: the rotated heads that attention reads."""
    position_ids = torch.randint(0, 50, (2, 9, 3), device=DEVICE)
    cosines, sines = rope_cos_sin(position_ids, 32, 10_000.0)
    heads = torch.randn(2, 9, 4, 32, device=DEVICE)
    first, second = heads.chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    expected = heads * cosines.transpose(1, 2) + turned * sines.transpose(1, 2)
    batch = random_rows(9, longest=(9, 9, 9)).to(DEVICE)
    tiles = batch_visibility(batch, "spans", head_width=32).spans
    joined = torch.cat([heads, heads[:, :, :1]], dim=2).flatten(2)
    empty = joined.new_empty(0)
    _, rotated, _ = torch.ops.unimm.joined_attention(
        *(joined, empty, empty, cosines, sines, tiles.document_starts, tiles.key_spans),
        *(tiles.forward.ranges, tiles.forward.starts),
        *(tiles.query_gradient.ranges, tiles.query_gradient.starts, tiles.query_ranges),
        *(tiles.width, 3, 32, 0.0),
    )
    torch.testing.assert_close(rotated, expected, atol=1e-5, rtol=1e-5)
