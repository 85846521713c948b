"""The one sampling loop: from noise to data over a grid of times, with any solver.

It is a generator too: it yields what its solver asks and returns the ``Trajectory``, so that an
objective can answer from behind the generation engine. ``run`` drives it by a plain function.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unimm.diffusion.solvers import Past, Query, Solver

Velocity = Callable[[Tensor, float], Tensor]
"""``(x (B, ...), t) -> (B, ...)``, guidance already mixed."""


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """What sampling went through.

    Attributes:
        x: ``(B, ...)`` at the last time.
        times: the grid.
        points: ``(B, ...)`` at every time, when recorded.
        log_probs: ``(B,)`` of every step that drew with a known probability.
    """

    x: Tensor
    times: tuple[float, ...]
    points: tuple[Tensor, ...] = ()
    log_probs: tuple[Tensor, ...] = ()


Sampling = Generator[Query, Tensor, Trajectory]


def denoise(
    x: Tensor,
    times: Sequence[float],
    *,
    solver: Solver,
    noise: Tensor | None = None,
    is_recorded: bool = False,
    grad_steps: int = 0,
) -> Sampling:
    """Go from ``x`` at ``times[0]`` to ``times[-1]``.

    Args:
        x: ``(B, ...)``; steps are made in float32.
        times: falling.
        solver: how a step is made.
        noise: ``(len(times) - 1, B, ...)`` for stochastic solvers.
        is_recorded: keep every point.
        grad_steps: the last steps through which gradients flow (DRaFT); earlier ones are cut off.

    Yields:
        Queries; ``send`` gives back their velocities.
    """
    x, times = x.float(), tuple(times)
    num_steps = len(times) - 1
    points, log_probs = [x], []
    past: tuple[Past, ...] = ()
    for i in range(num_steps):
        needs_grad = i >= num_steps - grad_steps
        if i <= num_steps - grad_steps:
            x, past = x.detach(), tuple(_detached(p) for p in past)
        solving = solver(x, times[i], times[i + 1], past, None if noise is None else noise[i])
        try:
            query = next(solving)
            while True:
                velocity = yield query._replace(needs_grad=needs_grad)
                query = solving.send(velocity.float())
        except StopIteration as stop:
            x, past, log_prob = stop.value
        if log_prob is not None:
            log_probs.append(log_prob)
        if is_recorded:
            points.append(x)
    return Trajectory(
        x=x,
        times=times,
        points=tuple(points) if is_recorded else (),
        log_probs=tuple(log_probs),
    )


def run(sampling: Sampling, velocity: Velocity) -> Trajectory:
    """Answer a sampling loop's queries from a function; gradients only where they are asked for."""
    try:
        query = next(sampling)
        while True:
            with torch.set_grad_enabled(query.needs_grad):
                found = velocity(query.x, query.t)
            query = sampling.send(found)
    except StopIteration as stop:
        return stop.value


class EvaluationCounter:
    """Counts what sampling costs, so that no figure is typed.

    Attributes:
        num_calls: forwards of the network.
        num_rows: samples they evaluated, guidance branches included.
    """

    def __init__(self) -> None:
        self.num_calls = 0
        self.num_rows = 0

    def count(self, function: Velocity) -> Velocity:
        """Wrap a velocity function."""

        def counted(x: Tensor, t: float) -> Tensor:
            self._add(x)
            return function(x, t)

        return counted

    def watch(self, module: nn.Module) -> Callable[[], None]:
        """Count a module's forwards by its first argument; call the result to stop."""
        handle = module.register_forward_pre_hook(lambda _, inputs: self._add(inputs[0]))
        return handle.remove

    def _add(self, x: Tensor) -> None:
        self.num_calls += 1
        self.num_rows += len(x)


def _detached(past: Past) -> Past:
    return past._replace(x=past.x.detach(), x0=past.x0.detach())
