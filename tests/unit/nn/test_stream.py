"""The stream between layers: its number format, and what a recomputed layer keeps."""

import pytest
import torch

from unimm.nn.attention import Visibility
from unimm.nn.transformer import Backbone, BackboneConfig

CONFIG = BackboneConfig(dim=64, depth=4, num_heads=2, num_kv_heads=1, ffn_dim=96)


@pytest.fixture
def trunk() -> Backbone:
    torch.manual_seed(0)
    return Backbone(CONFIG)


def run(trunk: Backbone) -> torch.Tensor:
    torch.manual_seed(1)
    x, position_ids = torch.randn(2, 9, 64), torch.arange(9)[None, :, None].expand(2, 9, 3)
    rule = torch.ones(9, 9).tril().bool()[None, None]
    return trunk(x, position_ids, Visibility(dense=rule))


def test_autocast_halves_the_stream_but_not_the_norms(trunk):
    seen = []
    for layer in trunk.layers:
        layer.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[1])))
        layer.input_layernorm.register_forward_hook(lambda _m, _x, out: seen.append((out,)))
    exact = run(trunk)
    assert all(x.dtype == torch.float32 for given in seen for x in given)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        half = run(trunk)
    streams = [x for given in seen if len(given) == 2 for x in given]
    normed = [given[0] for given in seen if len(given) == 1]
    assert len(streams) == 2 * CONFIG.depth and len(normed) == CONFIG.depth
    assert all(x.dtype == torch.bfloat16 for x in streams)
    assert all(x.dtype == torch.float32 for x in normed)
    assert 0 < float((half - exact).detach().norm() / exact.detach().norm()) < 0.02


def test_recomputed_layers_give_the_same_and_are_given_one_tensor(trunk):
    given = []
    expected = run(trunk)
    wanted = torch.autograd.grad(expected.square().sum(), list(trunk.parameters()))
    trunk.use_checkpointing = True
    trunk.layers[1].register_forward_pre_hook(lambda _, inputs: given.append(inputs[1]))
    found = run(trunk)
    torch.testing.assert_close(found, expected)
    gradients = torch.autograd.grad(found.square().sum(), list(trunk.parameters()))
    assert given == [None, None]  # once more in the backward
    for mine, reference in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-4, rtol=1e-4)
