"""Conversions, densities, shifts and guidance agree with their definitions."""

import math

import pytest
import torch

from unimm.diffusion import path, times
from unimm.diffusion.guidance import Guidance, guided
from unimm.diffusion.vp import velocity_of_vp, vp_scale, vp_times


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 6, 3, 4, generator=generator).unbind(0)
    return x0, noise, torch.linspace(0.05, 0.95, 6)


def test_conversions_invert_each_other(pair):
    x0, noise, t = pair
    x, v = path.add_noise(x0, noise, t), path.velocity_of(x0, noise)
    torch.testing.assert_close(path.to_data(x, v, t), x0)
    torch.testing.assert_close(path.to_noise(x, v, t), noise)
    torch.testing.assert_close(path.from_data(x, x0, t), v, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(path.from_noise(x, noise, t), v, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(path.to_score(x, v, t), -noise / path.spread(t, x))


def test_time_one_is_noise_and_time_zero_is_data(pair):
    x0, noise, _ = pair
    assert torch.equal(path.add_noise(x0, noise, 1.0), noise)
    assert torch.equal(path.add_noise(x0, noise, 0.0), x0)


def test_weights_turn_any_error_into_the_velocitys(pair):
    x0, noise, t = pair
    x, v = path.add_noise(x0, noise, t), path.velocity_of(x0, noise)
    wrong = v + 0.3
    errors: dict[path.Space, torch.Tensor] = {
        "velocity": wrong - v,
        "data": path.to_data(x, wrong, t) - x0,
        "noise": path.to_noise(x, wrong, t) - noise,
    }
    for space, error in errors.items():
        weight = path.spread(path.error_weight(t, space), x)
        torch.testing.assert_close(weight * error**2, torch.full_like(x0, 0.09))


def test_half_precision_times_are_refused(pair):
    x0, noise, t = pair
    with pytest.raises(AssertionError):
        path.add_noise(x0, noise, t.bfloat16())


def test_densities_have_the_published_moments():
    uniform = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    normal = times.sample_times(uniform, times.TimeConfig(mean=0.5, std=1.2))
    logits = torch.logit(normal.double())
    assert abs(float(logits.mean()) - 0.5) < 0.01
    assert abs(float(logits.std()) - 1.2) < 0.01
    plain = times.sample_times(uniform, times.TimeConfig(density="uniform"))
    torch.testing.assert_close(plain, uniform, atol=1e-6, rtol=0)
    mode = times.sample_times(uniform, times.TimeConfig(density="mode", mode_scale=1.29))
    assert float(mode.min()) > 0 and float(mode.max()) <= 1
    middle = ((mode > 0.4) & (mode < 0.6)).double().mean()
    assert float(middle) > 1.5 * 0.2  # favours the middle


def test_shift_and_grid():
    t = torch.linspace(0, 1, 11)
    shifted = times.shift_times(t, 3.0)
    assert shifted[0] == 0 and shifted[-1] == 1 and bool((shifted[1:-1] > t[1:-1]).all())
    assert times.resolution_shift(1024, 256) == 2.0
    grid = times.time_grid(4, shift=3.0)
    assert grid[0] == 1.0 and grid[-1] == 0.0
    torch.testing.assert_close(
        torch.tensor(grid), times.shift_times(torch.tensor([1.0, 0.75, 0.5, 0.25, 0]), 3.0)
    )
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        times.time_grid(0)
    with pytest.raises(ValueError, match="std must be positive, got 0"):
        times.TimeConfig(std=0)


@pytest.mark.parametrize("predicts", ["noise", "v"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "cosine"])
def test_a_vp_model_is_a_velocity_field(pair, schedule, predicts):
    """A VP network that knows the answer gives the exact velocity, asked at its own steps."""
    x0, noise, _ = pair
    grid = vp_times(schedule)
    steps = torch.tensor([3, 100, 300, 500, 700, 950])
    t = grid[steps].float()
    alpha, sigma = (path.spread(c * vp_scale(t), x0) for c in (1 - t, t))

    def network(x_vp, step):
        torch.testing.assert_close(step, steps.float(), atol=0.05, rtol=0)
        torch.testing.assert_close(x_vp, alpha * x0 + sigma * noise, atol=1e-5, rtol=1e-4)
        return noise if predicts == "noise" else alpha * noise - sigma * x0

    found = velocity_of_vp(network, grid, predicts=predicts)(path.add_noise(x0, noise, t), t)
    torch.testing.assert_close(found, noise - x0, atol=2e-3, rtol=1e-3)


def test_guidance_mixes_and_counts_its_branches():
    outputs = {"text": 5.0, "picture": 3.0, "none": 1.0}

    def velocity(x, t, branches):
        names = {1: ["text"], 2: ["text", "none"], 3: ["text", "picture", "none"]}[branches]
        assert x.shape[0] == t.shape[0] == 2 * branches and t.dtype == torch.float32
        return torch.cat([torch.full((2, 3), outputs[name]) for name in names])

    def at(guidance, t):
        return float(guided(velocity, guidance)(torch.zeros(2, 3), t)[0, 0])

    assert at(Guidance(), 0.5) == 5.0
    assert at(Guidance(scale=2.0), 0.5) == 1 + 2 * (5 - 1)
    assert at(Guidance(scale=2.0, middle_scale=1.5), 0.5) == 1 + 1.5 * (3 - 1) + 2 * (5 - 3)
    # Two branches that hide something else each: both push away, as ``nn.sampling.guide`` does.
    assert at(Guidance(scale=2.0, other_scales=(1.5,)), 0.5) == 3 + 2 * (5 - 3) + 0.5 * (5 - 1)
    late = Guidance(scale=2.0, interval=(0.2, 0.8))
    assert [at(late, t) for t in (0.1, 0.2, 0.5, 0.8, 0.9)] == [5.0, 5.0, 9.0, 9.0, 5.0]
    with pytest.raises(ValueError, match="interval must rise"):
        Guidance(interval=(0.5, 0.5))


def test_logit_is_not_lost_at_the_ends():
    ends = times.sample_times(torch.tensor([0.0, 1.0]), times.TimeConfig())
    assert (
        bool(ends.isfinite().all())
        and float(ends[0]) > 0
        and math.isclose(float(ends[1]), 1, abs_tol=0.01)
    )
