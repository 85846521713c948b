"""The engine on one rank: nothing is reduced, gradients are clipped, the average follows."""

import math

import pytest
import torch
from helpers import packed, random_story, tiny_model, tiny_objective
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unimm.training.config import EngineConfig, OptimizerConfig
from unimm.training.engine import Engine, choose_device

BATCH = packed(tiny_objective("next_token"), [[random_story(0)]])


def make_engine(**optimizer):
    config = OptimizerConfig(**optimizer)
    return Engine(tiny_model(), EngineConfig(device="cpu"), config, device=choose_device("cpu"))


def take_step(engine, **options):
    engine.backward(engine.forward(BATCH).total)
    return engine.step(learning_rate=1e-2, step=0, **options)


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that is made meanwhile."""

    def __init__(self):
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(result) if isinstance(x, torch.Tensor)]
        self.found = max(self.found, *sizes, 0)
        return result


def test_one_rank_makes_no_buffer_of_all_gradients():
    engine = make_engine()
    total = engine.forward(BATCH).total
    with Largest() as largest:
        engine.backward(total)
    sizes = [p.grad.numel() for p in engine.model.parameters() if p.grad is not None]
    assert max(sizes) <= largest.found < sum(sizes)


@pytest.mark.parametrize("max_norm", [0.01, 1e3, 0.0])
def test_moments_are_those_of_clipped_gradients(max_norm):
    engine = make_engine(max_norm=max_norm)
    norm = take_step(engine, is_measured=True)
    assert norm is not None and norm > 0.02
    moments = torch.cat([x["exp_avg"] for x in engine._partition.moments()])
    expected = min(norm, max_norm or math.inf) * (1 - OptimizerConfig().betas[0])
    assert float(moments.norm()) == pytest.approx(expected, rel=1e-4)
    assert all(p.grad is None for p in engine.model.parameters())


def test_the_average_follows_weights_that_were_moved_in_memory():
    """As drawing on a GPU moves those that one product takes."""
    engine = make_engine()
    before = engine.model.text_embedding.weight.detach().clone()
    for parameter in engine.model.parameters():
        parameter.data = parameter.data.clone()
    take_step(engine)
    after = engine.model.text_embedding.weight.detach()
    with engine.averaged_weights():
        average = engine.model.text_embedding.weight.detach().clone()
    assert not torch.equal(before, after)
    torch.testing.assert_close(average, before.lerp(after, 0.9))
