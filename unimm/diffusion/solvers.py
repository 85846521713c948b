"""Solvers of the sampling equation, one signature for all.

A solver is a generator that goes from time ``t`` to ``s < t``: it yields a ``Query`` for every
velocity it needs, is sent the velocity, and returns the ``Step``. So the same solver runs on a
plain function, on a denoiser, or on a trunk that lives behind the generation engine. Coefficients
are Python floats: nothing waits for the device.
"""

import math
from collections.abc import Callable, Generator
from typing import NamedTuple

from torch import Tensor

from unimm.diffusion.path import log_snr, to_data, to_noise


class Query(NamedTuple):
    """A velocity that is asked for: at ``x (B, ...)`` and time ``t``."""

    x: Tensor
    t: float
    needs_grad: bool = False


class Past(NamedTuple):
    """What a multistep solver keeps of an earlier step.

    Attributes:
        x: ``(B, ...)`` where the step began, corrected.
        x0: ``(B, ...)`` the data estimated there.
        t: its time.
        order: of the step that was made from there.
    """

    x: Tensor
    x0: Tensor
    t: float
    order: int


class Step(NamedTuple):
    """Where a solver arrived.

    Attributes:
        x: ``(B, ...)`` at the new time.
        past: newest last; empty for single-step solvers.
        log_prob: ``(B,)`` of a step that drew noise, the mean over dimensions.
    """

    x: Tensor
    past: tuple[Past, ...] = ()
    log_prob: Tensor | None = None


Solving = Generator[Query, Tensor, Step]
Solver = Callable[[Tensor, float, float, tuple[Past, ...], Tensor | None], Solving]
"""``(x, t, s, past, noise)``; ``noise (B, ...)`` is read by the stochastic ones only."""


def euler(
    x: Tensor, t: float, s: float, past: tuple[Past, ...] = (), noise: Tensor | None = None
) -> Solving:
    """Follow the velocity: order 1, one evaluation."""
    velocity = yield Query(x, t)
    return Step(x + (s - t) * velocity)


def heun(
    x: Tensor, t: float, s: float, past: tuple[Past, ...] = (), noise: Tensor | None = None
) -> Solving:
    """Average the velocities of both ends: order 2, two evaluations but at the last step one."""
    first = yield Query(x, t)
    ahead = x + (s - t) * first
    if s == 0:
        return Step(ahead)
    second = yield Query(ahead, s)
    return Step(x + (s - t) / 2 * (first + second))


def ddim(
    x: Tensor,
    t: float,
    s: float,
    past: tuple[Past, ...] = (),
    noise: Tensor | None = None,
    *,
    eta: float = 0.0,
) -> Solving:
    """DDIM (Song et al., 2021, Eq. 12): on this path Euler when ``eta`` is 0, DDPM when it is 1."""
    velocity = yield Query(x, t)
    x0, direction = to_data(x, velocity, t), to_noise(x, velocity, t)
    if eta == 0 or s == 0:
        return Step((1 - s) * x0 + s * direction)
    assert noise is not None, "a stochastic step needs noise"
    # Their sigma, of the variance-preserving process, scaled to this path.
    scale_s, scale_t = math.hypot(1 - s, s), math.hypot(1 - t, t)
    kept = ((1 - t) / scale_t) / ((1 - s) / scale_s)
    drawn = eta * s * scale_t / t * math.sqrt(1 - kept**2)
    return Step((1 - s) * x0 + math.sqrt(s**2 - drawn**2) * direction + drawn * noise)


def dpm_solver_pp_2m(
    x: Tensor, t: float, s: float, past: tuple[Past, ...] = (), noise: Tensor | None = None
) -> Solving:
    """DPM-Solver++(2M) (Lu et al., 2022, Algorithm 2): order 2, one evaluation."""
    velocity = yield Query(x, t)
    x0 = to_data(x, velocity, t)
    estimate, order = x0, 1
    if past and s > 0:
        h, before = log_snr(s) - log_snr(t), log_snr(t) - log_snr(past[-1].t)
        estimate, order = x0 + h / (2 * before) * (x0 - past[-1].x0), 2
    return Step(_exponential_step(x, estimate, t, s), (Past(x, x0, t, order),))


def unipc(
    x: Tensor, t: float, s: float, past: tuple[Past, ...] = (), noise: Tensor | None = None
) -> Solving:
    """UniPC-2 with B(h) = e^h - 1 (Zhao et al., 2023): corrects ``x`` first, at no evaluation.

    The velocity at the uncorrected point serves both the correction and the next prediction.
    """
    velocity = yield Query(x, t)
    x0 = to_data(x, velocity, t)
    if past:
        x = _unipc_corrected(past, x0, t)
    estimate, order = x0, 1
    if past and s > 0:
        ratio = (log_snr(past[-1].t) - log_snr(t)) / (log_snr(s) - log_snr(t))
        estimate, order = x0 + 0.5 * (past[-1].x0 - x0) / ratio, 2
    new = Past(x, x0, t, order)
    return Step(_exponential_step(x, estimate, t, s), (*past[-1:], new))


def renoise(
    x: Tensor, t: float, s: float, past: tuple[Past, ...] = (), noise: Tensor | None = None
) -> Solving:
    """Estimate the data and noise it afresh: how consistency models and their kin are sampled."""
    velocity = yield Query(x, t)
    x0 = to_data(x, velocity, t)
    if s == 0:
        return Step(x0)
    assert noise is not None, "a stochastic step needs noise"
    return Step((1 - s) * x0 + s * noise)


def sde(
    x: Tensor,
    t: float,
    s: float,
    past: tuple[Past, ...] = (),
    noise: Tensor | None = None,
    *,
    strength: float = 0.7,
) -> Solving:
    """A stochastic step with the same marginals and a known probability (Flow-GRPO, Eq. 9).

    The last step, to ``s = 0``, draws nothing and has no probability.
    """
    velocity = yield Query(x, t)
    if s == 0:
        return Step(to_data(x, velocity, t))
    assert noise is not None, "a stochastic step needs noise"
    mean, std = sde_moments(x, velocity, t, s, strength=strength)
    drawn = (mean + std * noise).detach()
    return Step(drawn, log_prob=gaussian_log_prob(drawn, mean, std))


def sde_moments(
    x: Tensor, velocity: Tensor, t: float, s: float, *, strength: float
) -> tuple[Tensor, float]:
    """Mean ``(B, ...)`` and standard deviation of a stochastic step, in float32.

    ``sigma_t = strength * sqrt(t / (1 - t))``; at ``t = 1`` the next time stands in for it.
    """
    x, velocity = x.float(), velocity.float()
    sigma = strength * math.sqrt(t / (1 - (s if t == 1 else t)))
    drift = velocity + sigma**2 / (2 * t) * (x + (1 - t) * velocity)
    return x + (s - t) * drift, sigma * math.sqrt(t - s)


def gaussian_log_prob(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log density of ``x (B, ...)``, the mean over dimensions ``(B,)`` (DDPO's scale)."""
    normal = -((x - mean) ** 2) / (2 * std**2) - math.log(std) - 0.5 * math.log(2 * math.pi)
    return normal.flatten(1).mean(1)


def _exponential_step(x: Tensor, x0: Tensor, t: float, s: float) -> Tensor:
    """Solve exactly for a constant estimate of the data."""
    return s / t * x + _data_weight(t, s) * x0


def _data_weight(t: float, s: float) -> float:
    """``alpha_s (1 - e^-h)`` from ``t`` to ``s``, finite also at ``t = 1``."""
    return (1 - s) - (1 - t) * s / t


def _unipc_corrected(past: tuple[Past, ...], x0: Tensor, t: float) -> Tensor:
    """The point at ``t`` again, now that the data estimated there is known (their Eq. 9)."""
    last = past[-1]
    h = log_snr(t) - log_snr(last.t)
    newest = x0 - last.x0
    if last.order == 1:
        change = 0.5 * newest
    else:
        older = past[-2]
        ratio = (log_snr(older.t) - log_snr(last.t)) / h
        # rho solves [[1, 1], [ratio, 1]] rho = b, with b from phi functions of -h.
        phi_2 = math.expm1(-h) / -h - 1
        b_1 = phi_2 / math.expm1(-h)
        b_2 = 2 * (phi_2 / -h - 0.5) / math.expm1(-h)
        rho_older = (b_1 - b_2) / (1 - ratio)
        change = rho_older * (older.x0 - last.x0) / ratio + (b_1 - rho_older) * newest
    return _exponential_step(last.x, last.x0, last.t, t) + _data_weight(last.t, t) * change


SOLVERS: dict[str, Solver] = {
    "euler": euler,
    "heun": heun,
    "ddim": ddim,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "unipc": unipc,
    "renoise": renoise,
    "sde": sde,
}
