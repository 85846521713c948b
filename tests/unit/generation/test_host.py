"""What a picture asks of the host: little before its first step, and never to wait.

The model lies on the meta device, whose numbers cannot be read; the trunk is left out.
"""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from pipelines import tiny_pipeline
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from unimm.generation import graphs
from unimm.generation.cached_rows import CachedRows
from unimm.generation.graphs import StepGraphs
from unimm.generation.image import generate_image
from unimm.objectives import OBJECTIVES
from unimm.objectives.base import Chain

MOST_OPERATIONS = 42
"""That PyTorch runs before a guided picture's chain, of which every one is a launch or a view."""


class Reached(Exception):
    """The host came as far as was wanted."""


class Copies(TorchFunctionMode):
    """Remembers what is copied from the host to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, bool]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        given = [x for x in args if isinstance(x, Tensor)]
        is_from_host = not any(x.is_meta for x in given) and (given or func is torch.tensor)
        if is_from_host and isinstance(found, Tensor) and found.is_meta:
            self.found.append((func.__name__, bool(kwargs.get("non_blocking"))))
        return found


class Operations(TorchDispatchMode):
    """Counts what PyTorch runs."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def no_trunk(monkeypatch):
    def run(steps: StepGraphs, rows: list[int], x: Tensor, *_: Any, **__: Any) -> Tensor:
        steps.cache.lengths_of(rows)
        return x.clone()

    def run_chain(steps: StepGraphs, rows: list[int], chain: Chain, *_: Any, **__: Any) -> Tensor:
        steps.cache.lengths_of(rows)
        return chain.last[:, None].clone()

    monkeypatch.setattr(StepGraphs, "run", run)
    monkeypatch.setattr(StepGraphs, "run_chain", run_chain)
    monkeypatch.setattr(graphs, "_is_kept", lambda cache: True)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta device


def raises(*_: Any, **__: Any) -> None:
    raise Reached


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_the_host_waits_for_no_step_of_a_picture(name, no_trunk, monkeypatch):
    pipeline = tiny_pipeline(name).to("meta")
    monkeypatch.setattr(CachedRows, "settle", raises)  # asked behind the last step
    for _ in range(2):  # in the first, what is made once may wait
        copies = Copies()
        with copies, pytest.raises(Reached):
            generate_image(pipeline, "she finds", seed=1, guidance_scale=1.5)
    assert len(copies.found) > 4
    assert all(is_asynchronous for _, is_asynchronous in copies.found), copies.found


def test_little_precedes_a_chain(no_trunk, monkeypatch):
    pipeline = tiny_pipeline().to("meta")
    monkeypatch.setattr(StepGraphs, "run_chain", raises)
    with pytest.raises(Reached):
        generate_image(pipeline, "she finds", seed=1, guidance_scale=1.5)
    operations, copies = Operations(), Copies()
    with monkeypatch.context() as patch, operations, copies, pytest.raises(Reached):
        patch.setattr(nn.Module, "named_modules", None)  # a walk through all of them takes too long
        generate_image(pipeline, "she finds", seed=2, guidance_scale=1.5)
    assert 0 < operations.count <= MOST_OPERATIONS
    assert len(copies.found) <= 5, "ids with positions, lengths, origins, noise, positions"
