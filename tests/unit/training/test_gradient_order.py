"""Gradients of compiled blocks arrive in any order and are reduced in one."""

import itertools

from torch import nn

from unimm.training.gradient_order import keep_order


class Buckets:
    """What ZeRO does with a gradient that has arrived: here, note it."""

    def __init__(self):
        self.filled = []

    def process_gradients(self, parameter, group):
        self.filled.append((parameter, group))


def fill(model, arriving):
    """What fills the buckets, as (name, group), when gradients of these names arrive."""
    zero, names = Buckets(), {id(p): name for name, p in model.named_parameters()}
    keep_order(zero, [model.first, model.second])
    for group, name in arriving:
        zero.process_gradients(model.get_parameter(name), group)
    return [(names[id(p)], group) for p, group in zero.filled]


def test_every_order_of_arrival_fills_buckets_alike():
    model = nn.ModuleDict({"first": nn.Linear(2, 3), "second": nn.Linear(3, 2)})
    model["tail"] = nn.Linear(2, 2)
    model.first.weight.requires_grad_(False)
    block = [(0, "second.weight"), (1, "second.bias")]
    rest = [(0, "tail.weight"), (1, "first.bias")]
    found = [fill(model, [*order, *rest]) for order in itertools.permutations(block)]
    wanted = [(name, group) for group, name in (*block, *rest)]
    assert found == [wanted, wanted]
    # A second micro-batch, in another order: blocks whole, whatever comes in between.
    mixed = [block[1], rest[0], block[0], rest[1]]
    assert fill(model, mixed * 2) == [("tail.weight", 0), *wanted[:2], ("first.bias", 1)] * 2
