import copy

import torch
from torch import nn
from torch.nn import functional

from unimm.nn.adjacent import _joined, joined_product, lay_together, products
from unimm.nn.linear import Linear
from unimm.nn.transformer import Backbone, BackboneConfig, DecoderLayer


def layers():
    torch.manual_seed(0)
    return [Linear(8, 12), Linear(8, 4), Linear(8, 4)]


def test_weights_that_lie_together_are_one_product_with_the_same_results():
    modules, x = layers(), torch.randn(5, 3, 8)
    weights = [module.weight for module in modules]
    before = [weight.detach().clone() for weight in weights]
    assert _joined(weights) is None
    apart = products(x, weights)
    lay_together(modules)
    joined = _joined(weights)
    assert joined is not None and torch.equal(joined, torch.cat(before))
    assert [module.weight for module in modules] == weights  # still the same parameters
    for found, other, weight in zip(products(x, weights), apart, before, strict=True):
        torch.testing.assert_close(found, other)
        torch.testing.assert_close(found, functional.linear(x, weight))


def test_biases_move_with_their_weights():
    torch.manual_seed(0)
    modules, x = [nn.Linear(8, 12), nn.Linear(8, 4)], torch.randn(5, 3, 8)
    weights, biases = [m.weight for m in modules], [m.bias for m in modules]
    expected = [module(x) for module in modules]
    for is_together in (False, True):
        if is_together:
            lay_together(modules)
            assert _joined(weights) is not None and _joined(biases) is not None
        for found, other in zip(products(x, weights, biases), expected, strict=True):
            torch.testing.assert_close(found, other)


def test_what_was_moved_apart_is_multiplied_apart():
    modules = layers()
    lay_together(modules)
    a, b, c = (module.weight for module in modules)
    assert _joined([a, c]) is None and _joined([b, a]) is None
    assert _joined([b, c]) is not None
    modules[1].double()
    assert _joined([a, modules[1].weight, c]) is None
    copied = copy.deepcopy(modules[2])
    assert _joined([b, copied.weight]) is None


def test_a_trunk_that_lies_together_computes_and_saves_the_same():
    config = BackboneConfig(dim=32, depth=2, num_heads=4, num_kv_heads=2, ffn_dim=48)
    backbone = Backbone(config).eval()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.lay_together()
    after = backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    layer = backbone.layers[1]
    assert isinstance(layer, DecoderLayer)
    attention = layer.self_attn
    weights = [m.weight for m in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert _joined(weights) is not None


def test_a_joined_product_gives_each_weight_its_gradient():
    torch.manual_seed(0)
    x, weights = torch.randn(5, 8), [torch.randn(n, 8, requires_grad=True) for n in (6, 2, 4)]
    given = torch.randn(5, 12)
    found = []
    for is_joined in (True, False):
        out = joined_product(x, weights, is_joined=is_joined)
        found.append((out, *torch.autograd.grad(out, weights, given)))
    wanted = torch.cat([functional.linear(x, weight) for weight in weights], dim=-1)
    for joined, apart in zip(*found, strict=True):
        torch.testing.assert_close(joined, apart)
    torch.testing.assert_close(found[0][0], wanted)
    assert [x.shape for x in found[0][1:]] == [x.shape for x in weights]
