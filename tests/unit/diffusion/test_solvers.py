"""Solvers on a field that is known exactly: order, quality, parity with diffusers."""

import functools
import itertools
import re
import warnings
from pathlib import Path

import mixture
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.schedulers.scheduling_flow_match_heun_discrete import (
    FlowMatchHeunDiscreteScheduler,
)
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from unimm.diffusion.sampler import EvaluationCounter, denoise, run
from unimm.diffusion.solvers import SOLVERS, ddim, gaussian_log_prob, sde, sde_moments
from unimm.diffusion.times import time_grid
from unimm.diffusion.vp import velocity_of_vp, vp_scale, vp_times

DETERMINISTIC = ["euler", "heun", "ddim", "dpm_solver_pp_2m", "unipc"]


def test_the_guides_example_runs():
    text = (Path(__file__).parents[3] / "docs/diffusion.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block and "assert" in block[1]
    exec(compile(block[1], "docs/diffusion.md", "exec"), {})


def start(count: int, seed: int = 0):
    return torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))


def sampled(name, num_steps, x, grid=None):
    return run(denoise(x, grid or time_grid(num_steps), solver=SOLVERS[name]), mixture.velocity).x


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(name, order):
    """Halving the step divides the error by 2 to the order, against a fine reference."""
    x = start(512)
    grid = lambda n: [1 - 0.6 * i / n for i in range(n + 1)]  # noqa: E731  smooth part of the path
    reference = sampled("heun", 0, x, grid(1024))
    errors = [
        float((sampled(name, 0, x, grid(n)) - reference).abs().mean()) for n in (8, 16, 32, 64)
    ]
    slopes = [torch.tensor(a / b).log2().item() for a, b in itertools.pairwise(errors)]
    assert abs(slopes[-1] - order) < 0.15, slopes


def test_ten_evaluations_of_the_fast_solvers_nearly_reach_fifty_steps():
    x = start(4000)
    fifty = mixture.quality(sampled("euler", 50, x))
    assert fifty > 0.98
    for name in ("unipc", "dpm_solver_pp_2m"):
        counter = EvaluationCounter()
        found = run(
            denoise(x, time_grid(10), solver=SOLVERS[name]), counter.count(mixture.velocity)
        ).x
        assert counter.num_calls == 10 and counter.num_rows == 40_000
        assert mixture.quality(found) >= 0.98 * fifty
    assert mixture.quality(sampled("euler", 4, x)) < 0.8 * fifty  # the measure can fail


def test_heun_costs_two_evaluations_but_for_the_last_step():
    counter = EvaluationCounter()
    run(denoise(start(3), time_grid(5), solver=SOLVERS["heun"]), counter.count(mixture.velocity))
    assert counter.num_calls == 2 * 5 - 1


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_one_step_of_size_one_on_a_linear_field_returns_the_data(name):
    x0, noise = start(5, 1), start(5, 2)
    trajectory = run(denoise(noise, (1.0, 0.0), solver=SOLVERS[name]), lambda x, t: noise - x0)
    torch.testing.assert_close(trajectory.x, x0)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_any_grid_is_exact_on_a_linear_field(name):
    x0, noise = start(5, 1), start(5, 2)
    trajectory = run(
        denoise(noise, time_grid(7, shift=2), solver=SOLVERS[name]), lambda x, t: noise - x0
    )
    torch.testing.assert_close(trajectory.x, x0, atol=1e-5, rtol=1e-5)


def scheduler_of(name, num_steps):
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    known = {
        "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=1.0),
        "heun": lambda: FlowMatchHeunDiscreteScheduler(shift=1.0),
        "dpm_solver_pp_2m": lambda: DPMSolverMultistepScheduler(**flow),
        "unipc": lambda: UniPCMultistepScheduler(**flow),
    }
    scheduler = known[name]()
    scheduler.set_timesteps(num_steps)
    return scheduler


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("num_steps", [6, 20])
@pytest.mark.parametrize("name", ["euler", "heun", "dpm_solver_pp_2m", "unipc"])
def test_parity_with_diffusers(name, num_steps):
    """Same times, same field, same point: theirs are read from ``sigmas``, never ``timesteps``."""
    scheduler = scheduler_of(name, num_steps)
    sigmas = scheduler.sigmas.tolist()
    times = sigmas[:1] + sigmas[1::2] if name == "heun" else sigmas
    x = theirs = start(64).double()[:, :, None]
    for i, step in enumerate(scheduler.timesteps):
        theirs = scheduler.step(
            mixture.velocity(theirs[..., 0], sigmas[i])[..., None], step, theirs
        )
        theirs = theirs.prev_sample
    ours = sampled(name, 0, x[..., 0], times)
    torch.testing.assert_close(ours.double(), theirs[..., 0].double(), atol=3e-4, rtol=1e-3)


def test_ddim_of_a_vp_model_is_diffusers_ddim():
    """A VP model on our path, stepped by ours, is the VP model stepped by theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        scheduler = DDIMScheduler(
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            beta_end=0.012,
            clip_sample=False,
            set_alpha_to_one=True,
            timestep_spacing="linspace",
        )
    scheduler.set_timesteps(12)
    steps, grid = scheduler.timesteps, vp_times("scaled_linear")

    def network(x_vp, step):
        return torch.tanh(x_vp + step[:, None] / 1000)

    x_vp = theirs = start(16).double()
    # Their next step is a fixed number of steps below, not the next of the list: walk their way.
    stride = 1000 // 12
    times = []
    for step in steps:
        previous = step - stride
        step = int(step)
        noise = network(theirs, torch.full((16,), float(step)))
        theirs = scheduler.step(noise, step, theirs, return_dict=False)[0]
        times.append((float(grid[step]), float(grid[previous]) if previous >= 0 else 0.0))
    field = velocity_of_vp(network, grid)
    ours = x_vp
    for t, s in times:
        x = ours / vp_scale(t)
        x = run(
            denoise(x, (t, s), solver=SOLVERS["ddim"]),
            lambda x, t: field(x, torch.full((len(x),), t)),
        ).x.double()
        ours = x * vp_scale(s)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "solver",
    [
        SOLVERS["renoise"],
        functools.partial(ddim, eta=1.0),
        functools.partial(sde, strength=0.7),
    ],
    ids=["renoise", "ddpm", "sde"],
)
def test_stochastic_solvers_keep_the_marginals(solver):
    """Many small steps land on the modes, all of them, with the right spread."""
    x, steps = start(4000), 60
    noise = torch.randn(steps, 4000, 2, generator=torch.Generator().manual_seed(5))
    found = run(denoise(x, time_grid(steps), solver=solver, noise=noise), mixture.velocity).x
    assert mixture.quality(found) > 0.93
    nearest = torch.cdist(found.double(), mixture.CENTRES).argmin(1)
    shares = torch.bincount(nearest, minlength=8) / 4000
    assert float((shares - 1 / 8).abs().max()) < 0.03


def test_log_probabilities_can_be_computed_again_and_differentiated():
    scale = torch.ones((), requires_grad=True)

    def velocity(x, t):
        return scale * mixture.velocity(x, t)

    noise = torch.randn(5, 6, 2, generator=torch.Generator().manual_seed(5))
    trajectory = run(
        denoise(start(6), time_grid(5), solver=sde, noise=noise, is_recorded=True, grad_steps=5),
        velocity,
    )
    assert len(trajectory.log_probs) == 4 and len(trajectory.points) == 6  # the last draws nothing
    for i, expected in enumerate(trajectory.log_probs):
        x, after = trajectory.points[i].detach(), trajectory.points[i + 1].detach()
        t, s = trajectory.times[i : i + 2]
        mean, std = sde_moments(x, velocity(x, t), t, s, strength=0.7)
        torch.testing.assert_close(gaussian_log_prob(after, mean, std), expected)
        reference = torch.distributions.Normal(mean, std).log_prob(after).mean(1)
        torch.testing.assert_close(expected, reference)
    torch.stack(trajectory.log_probs).sum().backward()
    assert scale.grad is not None and scale.grad.abs() > 0


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_gradients_flow_through_the_last_steps_only(name):
    """With K steps kept, the gradient is that of sampling the last K steps from the same point."""
    shift = torch.zeros(2, requires_grad=True)

    def velocity(x, t):
        return mixture.velocity(x, t) + shift

    whole = run(
        denoise(start(4), time_grid(6), solver=SOLVERS[name], is_recorded=True, grad_steps=0),
        velocity,
    )
    assert not whole.x.requires_grad
    gradients = []
    for kept in (1, 3, 6):
        shift.grad = None
        found = run(
            denoise(start(4), time_grid(6), solver=SOLVERS[name], grad_steps=kept), velocity
        )
        torch.testing.assert_close(found.x, whole.x)
        found.x.sum().backward()
        assert shift.grad is not None
        gradients.append(float(shift.grad.abs().sum()))
    assert 0 < gradients[0] < gradients[1] < gradients[2]
