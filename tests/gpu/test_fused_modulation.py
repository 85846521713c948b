"""Denoisers by our kernels against their eager blocks; TRITON_INTERPRET=1 runs them on a CPU."""

from typing import get_args

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from torch import nn
from torch.nn import functional

from unimm.nn import dit_blocks, embeddings, fused_modulation, modulation
from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.nn.dit_blocks import Conditioning
from unimm.nn.embeddings import grid_sinusoid
from unimm.nn.fused_modulation import add_modulate_fused, can_fuse, norm_heads_fused

pytestmark = KERNEL_MARKS
HALF = torch.float16 if IS_INTERPRETED else torch.bfloat16
"""The interpreter's products take a bfloat16 for the integer of its bits."""
TOLERANCE = {torch.float32: 1e-5, HALF: 2e-2}
EAGER_ERRORS = 1.2
"""Of the eager blocks' in half precision, at most."""


def numbers(*shape, dtype=torch.float32):
    return torch.randn(shape).to(DEVICE, dtype)


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 20, 1152])
@pytest.mark.parametrize(("gated", "told"), [(True, 6), (True, 1), (False, 6), (None, 1)])
def test_one_pass_adds_normalises_and_modulates(dtype, size, gated, told):
    """Shifts, scales and gates are parts of what one product gave; the stream is cut out, too."""
    x = (5 * numbers(2, 9, size, dtype=dtype) + 3)[:, 1:7]
    shift, scale, gate = numbers(2, told, 3 * size, dtype=dtype).chunk(3, dim=-1)
    branch = None if gated is None else numbers(6, 2, size, dtype=dtype).transpose(0, 1)
    gate = gate if gated else None
    found = add_modulate_fused(x, branch, gate, shift, scale, eps=1e-6)
    added = x.float()
    if branch is not None:
        added = added + branch.float() * (1 if gate is None else gate.float())
    added = added.to(dtype).float()
    seen = functional.layer_norm(added, (size,), eps=1e-6) * (1 + scale.float()) + shift.float()
    for ours, expected in zip(found, (added, seen), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.float(), expected, atol=TOLERANCE[dtype], rtol=1e-2)
        if dtype == torch.float32:
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("is_pair", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("num_heads", "width"), [(1, 16), (3, 12), (16, 72)])
def test_heads_are_normalised_where_they_lie(dtype, num_heads, width, is_pair):
    """Queries of one tensor, keys beside their values; alone or together."""
    weights = [1 + 0.3 * numbers(width, dtype=dtype) for _ in range(2)]
    query = numbers(2, 5, num_heads, width, dtype=dtype).transpose(1, 2)
    whole = numbers(2, 5, 2, num_heads, width, dtype=dtype)
    before = whole.clone()
    heads = [query, whole[:, :, 0].transpose(1, 2)]
    expected = [
        functional.rms_norm(x.float(), (width,), weight.float(), 1e-6).clone()
        for x, weight in zip(heads, weights, strict=True)
    ]
    pairs = list(zip(heads, weights, strict=True))
    for some in [pairs] if is_pair else [[pair] for pair in pairs]:
        norm_heads_fused(*some, eps=1e-6)
    assert torch.equal(whole[:, :, 1], before[:, :, 1])
    for found, wanted in zip(heads, expected, strict=True):
        torch.testing.assert_close(found.float(), wanted, atol=TOLERANCE[dtype], rtol=1e-2)


def denoiser(conditioning, dtype) -> Denoiser:
    config = DenoiserConfig(
        dim=60, depth=2, num_heads=3, patch_size=2, conditioning=conditioning
    )  # no power of two
    model = Denoiser(config, latent_dim=5, context_dim=12)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return model.to(DEVICE, dtype).eval().requires_grad_(False)


def can_fuse_by(monkeypatch, answer) -> None:
    for module in (dit_blocks, modulation):
        monkeypatch.setattr(module, "can_fuse", answer)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("num_together", [0, 1, 2])
@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_a_denoiser_gives_the_velocity_and_features_of_its_eager_blocks(
    conditioning: Conditioning, num_together, dtype, monkeypatch
):
    """Modulations of one block or of both are one product, or nothing lies together."""
    model = denoiser(conditioning, dtype)
    given = numbers(3, 5, 8, 8), torch.rand(3, device=DEVICE), numbers(3, 16, 12)
    can_fuse_by(monkeypatch, lambda *_: False)
    exact = denoiser_of(model)(*given, layers=(0, -1))
    expected = model(*given, layers=(0, -1))
    calls = []
    can_fuse_by(monkeypatch, lambda x, *_: calls.append(x) or True)
    if num_together:
        model.lay_together()
        monkeypatch.setattr(modulation, "MOST_BYTES", 0 if num_together == 1 else 2**30)
    found = model(*given, layers=(0, -1))
    assert calls
    pairs = zip(*((x.velocity, *x.features) for x in (found, expected, exact)), strict=True)
    for ours, eager, truth in pairs:
        assert ours.dtype == eager.dtype and ours.shape == eager.shape
        error = float((ours - truth).norm() / truth.norm())
        allowed = float((eager - truth).norm() / truth.norm())
        assert error <= max(EAGER_ERRORS * allowed, TOLERANCE[torch.float32]), (error, allowed)


@pytest.mark.parametrize(("conditioning", "per_block"), [("adaln_zero", 2), ("per_token", 1)])
def test_a_blocks_last_sum_is_made_by_the_next_norm(conditioning, per_block, monkeypatch):
    """Passes are the places twice, time, one a branch, and one to normalise the first stream."""
    model = denoiser(conditioning, torch.float32)
    can_fuse_by(monkeypatch, lambda *_: True)
    passes, real = [], fused_modulation._run
    monkeypatch.setattr(
        fused_modulation, "_run", lambda *x, **eps: passes.append(x[1:]) or real(*x, **eps)
    )
    model(numbers(3, 5, 8, 8), torch.rand(3, device=DEVICE), numbers(3, 16, 12))
    assert len(passes) == 3 + per_block * model.config.depth + 1
    without_norm = [branch for branch, _, shift, _ in passes if shift is None]
    assert len(without_norm) == 3


def denoiser_of(model: Denoiser) -> Denoiser:
    """The same in float32."""
    sizes = model.input.in_features // model.config.patch_size**2, model.context.in_features
    exact = Denoiser(model.config, latent_dim=sizes[0], context_dim=sizes[1])
    exact.load_state_dict(model.state_dict())
    return exact.to(DEVICE).eval()


@pytest.mark.skipif(IS_INTERPRETED, reason="a CPU records nothing")
def test_a_recording_reads_the_grid_that_is_kept_and_leaves_none(monkeypatch):
    monkeypatch.setattr(embeddings, "_all_kept", {})
    key = 3, 5, 8, torch.empty(0, device=DEVICE).device, torch.bfloat16
    with torch.enable_grad():
        grid_sinusoid(*key)  # warms the kernels up and keeps nothing
    for is_kept in (False, True):
        graph, found = torch.cuda.CUDAGraph(), torch.empty(15, 8, device=DEVICE)
        with torch.cuda.graph(graph):
            found.copy_(grid_sinusoid(*key))
        assert bool(embeddings._all_kept) == is_kept
        graph.replay()
        expected = grid_sinusoid(*key)  # kept from now on
        assert grid_sinusoid(*key) is expected and torch.equal(found, expected.float())


@pytest.mark.skipif(IS_INTERPRETED, reason="asks what a GPU would do")
def test_training_autocast_and_compilers_keep_the_eager_blocks():
    x = numbers(2, 3, 8)
    assert can_fuse(x) and not can_fuse(x.double()) and not can_fuse(x.cpu())
    with torch.enable_grad():
        assert not can_fuse(x)
    with torch.autocast("cuda", torch.bfloat16):
        assert not can_fuse(x)
    plain = torch.compile(can_fuse, fullgraph=True, backend="eager")
    assert not plain(x)


@pytest.mark.skipif(IS_INTERPRETED, reason="on a CPU the product's own is the exact GELU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 4, 300])
def test_a_feed_forward_on_a_gpu_has_the_same_gelu(rows, dtype):
    mlp = dit_blocks.MLP(64, 4.0).to(DEVICE, dtype)
    x = numbers(rows, 1, 64, dtype=dtype)
    torch.testing.assert_close(mlp.eval()(x), mlp.train()(x), atol=2e-2, rtol=1e-3)
    first, _, last = mlp
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    first.weight.zero_()
    first.bias.copy_(torch.linspace(-3.5, -2, 256))  # where the exact GELU is furthest away
    last.weight.copy_(torch.eye(64, 256))
    last.bias.zero_()
    found, inner = mlp.eval()(x)[0, 0].float(), first.bias[:64].float()
    errors = [
        (found - functional.gelu(inner, approximate=form)).abs().mean() for form in ("tanh", "none")
    ]
    assert errors[0] < 0.3 * errors[1], errors
