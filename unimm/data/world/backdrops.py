"""Backdrops: six places, sixteen looks each, drawn once with numpy.

Every look has its own horizon, so ground and sky fit the depth of the scene.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unimm.data.world.scene import BACKGROUNDS

NUM_VARIANTS = 16
MASTER = 256  # side of a drawn backdrop; smaller pictures are its area means

Picture = NDArray[np.float32]  # (MASTER, MASTER, 3), in [0, 1]
Colour = tuple[float, float, float]

_Y, _X = (np.mgrid[0:MASTER, 0:MASTER].astype(np.float32) + 0.5) / MASTER


def _rng(background: str, variant: int) -> np.random.Generator:
    key = [BACKGROUNDS.index(background), variant]
    return np.random.Generator(np.random.Philox(key=key))


def horizon_of(background: str, variant: int) -> float:
    """Height of the horizon in a backdrop, a fraction from the top.

    Raises:
        ValueError: on an unknown background or variant.
    """
    if background not in BACKGROUNDS or not 0 <= variant < NUM_VARIANTS:
        known = f"{BACKGROUNDS} with variants 0 to {NUM_VARIANTS - 1}"
        raise ValueError(f"unknown backdrop {background!r} {variant}; known: {known}")
    # A permutation of the sixteen steps, so that each background has every height once.
    step = (variant * 7 + BACKGROUNDS.index(background) * 3) % NUM_VARIANTS
    return round(0.34 + 0.14 * step / (NUM_VARIANTS - 1), 4)


def _mix(image: Picture, colour: Colour | Picture, alpha: NDArray[np.float32]) -> None:
    """Lay a colour over the picture, in place."""
    image += (np.asarray(colour, dtype=np.float32) - image) * alpha[..., None]


def _gradient(top: Colour, bottom: Colour, start: float, stop: float) -> Picture:
    share = np.clip((_Y - start) / (stop - start), 0, 1)[..., None]
    low, high = np.asarray(top, np.float32), np.asarray(bottom, np.float32)
    return (low + (high - low) * share).astype(np.float32)


def _wave(rng: np.random.Generator, rough: int = 3) -> NDArray[np.float32]:
    """A smooth line over x, in [0, 1]."""
    x = _X[:1]
    line = np.zeros_like(x)
    for k in range(1, rough + 1):
        frequency = rng.uniform(0.5, 1.0) * k * 1.4
        line += np.sin(2 * np.pi * (frequency * x + rng.uniform())) / k
    return (line - line.min()) / max(float(np.ptp(line)), 1e-6)


def _below(line: NDArray[np.float32] | np.float32, soft: float = 1.5) -> NDArray[np.float32]:
    """Alpha of everything under a line over x, with a soft edge."""
    return np.clip((_Y - line) * MASTER / soft + 0.5, 0, 1)


def _disc(x: float, y: float, radius: float) -> NDArray[np.float32]:
    distance = np.hypot(_X - x, _Y - y)
    return np.clip((radius - distance) * MASTER / 1.5 + 0.5, 0, 1)


def _glow(x: float, y: float, radius: float) -> NDArray[np.float32]:
    return np.exp(-((_X - x) ** 2 + (_Y - y) ** 2) / radius**2)


def _clouds(image: Picture, rng: np.random.Generator, horizon: float, colour: Colour) -> None:
    """One to three clouds: a few round puffs on a flat base, shaded from below."""
    for _ in range(rng.integers(1, 4)):
        x, y = rng.uniform(0.05, 0.95), rng.uniform(0.06, horizon * 0.55)
        width = rng.uniform(0.07, 0.12)
        puff = np.zeros_like(_X)
        for offset, size in ((-0.8, 0.36), (-0.25, 0.62), (0.35, 0.5), (0.9, 0.3)):
            size *= rng.uniform(0.85, 1.15)
            centre_y = y - 0.25 * size * width
            distance = np.hypot((_X - x - offset * width), (_Y - centre_y) * 1.25)
            puff = np.maximum(puff, np.clip((size * width - distance) * MASTER / 4 + 0.5, 0, 1))
        puff *= np.clip((y + 0.1 * width - _Y) * MASTER / 3 + 0.5, 0, 1)
        shade = np.clip((_Y - y + 0.5 * width) / (0.6 * width), 0, 1)[..., None]
        light = np.asarray(colour, np.float32) * (1 - 0.1 * shade)
        _mix(image, light, puff * 0.92)


def _hills(
    image: Picture,
    rng: np.random.Generator,
    horizon: float,
    colours: tuple[Colour, ...],
    tall: float,
) -> None:
    """Hills behind the horizon, far ones first; each is lighter at its top."""
    for k, colour in enumerate(colours):
        near = (k + 1) / len(colours)
        height = tall * (1.25 - 0.6 * near)
        line = horizon + 0.01 - height * (0.25 + 0.75 * _wave(rng))
        low = np.asarray(colour, np.float32)
        fade = np.clip((_Y - line) / (height + 0.02), 0, 1)[..., None]
        _mix(image, (low * (1.08 - 0.16 * fade)).astype(np.float32), _below(line))


def _ground(
    image: Picture, rng: np.random.Generator, horizon: float, far: Colour, near: Colour
) -> None:
    """The plane that figures stand on, with two faint folds."""
    line = horizon + 0.008 * _wave(rng)
    _mix(image, _gradient(far, near, horizon, 1.0), _below(line))
    for share in (0.3, 0.62):
        fold = horizon + (1 - horizon) * (share + 0.09 * _wave(rng, 2))
        fade = np.clip(1 - (_Y - fold) / 0.16, 0, 1) * _below(fold, 3.0)
        tone = 1.0 if rng.uniform() < 0.5 else -1.0
        image += (tone * 0.028 * fade)[..., None].astype(np.float32)


def _meadow(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.36, 0.68, 0.97), (0.86, 0.95, 1.0), 0.0, horizon)
    x, y = rng.uniform(0.12, 0.88), rng.uniform(0.09, 0.16)
    _mix(image, (1.0, 0.95, 0.7), _glow(x, y, 0.16) * 0.55)
    _mix(image, (1.0, 0.88, 0.35), _disc(x, y, 0.05))
    _clouds(image, rng, horizon, (1.0, 1.0, 1.0))
    _hills(image, rng, horizon, ((0.56, 0.79, 0.66), (0.45, 0.73, 0.46)), 0.13)
    _ground(image, rng, horizon, (0.56, 0.80, 0.40), (0.68, 0.85, 0.42))
    for _ in range(14):  # daisies, smaller where they are far
        near = rng.uniform(0.15, 1.0)
        x, y = rng.uniform(0, 1), horizon + near * (0.985 - horizon)
        petals = ((1.0, 0.98, 0.92), (1.0, 0.85, 0.9), (1.0, 0.93, 0.6))[rng.integers(3)]
        _mix(image, petals, _disc(x, y, 0.0035 + 0.005 * near) * 0.9)
    return image


def _desert(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.42, 0.70, 0.88), (0.99, 0.89, 0.70), 0.0, horizon)
    x, y = rng.uniform(0.15, 0.85), rng.uniform(0.09, 0.17)
    _mix(image, (1.0, 0.93, 0.65), _glow(x, y, 0.22) * 0.7)
    _mix(image, (1.0, 0.86, 0.42), _disc(x, y, 0.055))
    for _ in range(rng.integers(1, 4)):  # flat-topped rocks far away
        middle, half = rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.12)
        slope = np.clip((half - np.abs(_X[:1] - middle)) / 0.025, 0, 1)
        line = horizon + 0.02 - (0.045 + rng.uniform(0, 0.06)) * slope - 0.02
        _mix(image, (0.80, 0.52, 0.38), _below(line) * 0.75)
    _hills(image, rng, horizon, ((0.93, 0.70, 0.45), (0.88, 0.62, 0.36)), 0.085)
    _ground(image, rng, horizon, (0.90, 0.70, 0.44), (0.95, 0.79, 0.54))
    return image


def _snow(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.55, 0.72, 0.90), (0.90, 0.94, 0.98), 0.0, horizon)
    _clouds(image, rng, horizon, (0.97, 0.98, 1.0))
    _hills(image, rng, horizon, ((0.70, 0.79, 0.90), (0.78, 0.85, 0.93)), 0.16)
    for _ in range(rng.integers(4, 9)):  # firs on the horizon
        x, height = rng.uniform(0.02, 0.98), rng.uniform(0.06, 0.11)
        foot = horizon + 0.012
        for tier in range(3):
            top = foot - height * (1 - 0.24 * tier)
            half = 0.016 + 0.007 * tier
            reach = np.clip((_Y - top) / (height * 0.45), 0, 1)
            inside = np.clip((half * reach - np.abs(_X - x)) * MASTER + 0.5, 0, 1)
            inside *= _below(np.float32(top)) * (top + height * 0.45 > _Y)
            _mix(image, (0.28 + 0.05 * tier, 0.46, 0.50), inside)
    _ground(image, rng, horizon, (0.78, 0.85, 0.94), (0.70, 0.79, 0.91))
    return image


def _stars(image: Picture, rng: np.random.Generator, horizon: float, count: int) -> None:
    for _ in range(count):
        x, y = rng.uniform(0.01, 0.99), rng.uniform(0.01, horizon * 0.8)
        size = rng.choice([0.0022, 0.0032, 0.0048], p=[0.5, 0.35, 0.15])
        _mix(image, (1.0, 0.98, 0.88), _glow(x, y, float(size) * 1.4) * rng.uniform(0.55, 1.0))


def _night(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.06, 0.07, 0.22), (0.25, 0.28, 0.52), 0.0, horizon)
    _stars(image, rng, horizon, 46)
    x, y, side = rng.uniform(0.14, 0.86), rng.uniform(0.1, 0.17), rng.choice([-1.0, 1.0])
    _mix(image, (0.75, 0.78, 0.95), _glow(x, y, 0.13) * 0.35)
    moon = _disc(x, y, 0.058)
    if rng.uniform() < 0.7:  # a crescent more often than a full moon
        moon = moon * (1 - _disc(x + 0.03 * side, y - 0.012, 0.05))
    _mix(image, (1.0, 0.95, 0.76), moon)
    _hills(image, rng, horizon, ((0.19, 0.23, 0.44), (0.15, 0.21, 0.38)), 0.14)
    _ground(image, rng, horizon, (0.17, 0.28, 0.42), (0.22, 0.36, 0.47))
    return image


def _dusk(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.36, 0.25, 0.53), (0.93, 0.48, 0.50), 0.0, horizon * 0.62)
    lower = _gradient((0.93, 0.48, 0.50), (1.0, 0.77, 0.45), horizon * 0.62, horizon)
    image = np.where(horizon * 0.62 < _Y[..., None], lower, image).astype(np.float32)
    x, y = rng.uniform(0.2, 0.8), horizon - rng.uniform(0.05, 0.11)
    _mix(image, (1.0, 0.85, 0.55), _glow(x, y, 0.2) * 0.75)
    _mix(image, (1.0, 0.88, 0.52), _disc(x, y, 0.085))
    _clouds(image, rng, horizon, (0.98, 0.68, 0.66))
    _hills(image, rng, horizon, ((0.58, 0.33, 0.51), (0.45, 0.27, 0.47)), 0.1)
    _ground(image, rng, horizon, (0.48, 0.33, 0.46), (0.60, 0.43, 0.52))
    return image


def _beach(rng: np.random.Generator, horizon: float) -> Picture:
    image = _gradient((0.30, 0.68, 0.96), (0.88, 0.96, 1.0), 0.0, horizon)
    x, y = rng.uniform(0.12, 0.88), rng.uniform(0.09, 0.16)
    _mix(image, (1.0, 0.97, 0.8), _glow(x, y, 0.15) * 0.5)
    _mix(image, (1.0, 0.9, 0.42), _disc(x, y, 0.052))
    _clouds(image, rng, horizon, (1.0, 1.0, 1.0))
    shore = horizon + 0.10 + 0.035 * _wave(rng, 2)
    sea = _gradient((0.14, 0.48, 0.76), (0.30, 0.76, 0.85), horizon, horizon + 0.13)
    _mix(image, sea, _below(np.float32(horizon)))
    for _ in range(9):  # glints
        near = rng.uniform(0.1, 0.8)
        x, y = rng.uniform(0, 1), horizon + near * 0.1
        streak = np.exp(-(((_X - x) / 0.05) ** 2) - ((_Y - y) / 0.0035) ** 2)
        _mix(image, (0.85, 0.96, 1.0), streak * 0.7)
    _mix(image, (0.80, 0.70, 0.52), _below(shore))
    _mix(
        image,
        _gradient((0.93, 0.84, 0.64), (0.97, 0.89, 0.71), horizon, 1.0),
        _below(shore + 0.03, 6),
    )
    foam = np.exp(-(((_Y - shore) / 0.008) ** 2))
    _mix(image, (0.98, 1.0, 1.0), foam * 0.95)
    for _ in range(7):  # shells
        near = rng.uniform(0.35, 1.0)
        x, y = rng.uniform(0, 1), horizon + near * (0.985 - horizon)
        _mix(image, (1.0, 0.96, 0.9), _disc(x, y, 0.003 + 0.004 * near) * 0.8)
    return image


_PAINTERS: dict[str, Callable[[np.random.Generator, float], Picture]] = {
    "meadow": _meadow,
    "desert": _desert,
    "snow": _snow,
    "night": _night,
    "dusk": _dusk,
    "beach": _beach,
}


@cache
def backdrop(background: str, variant: int) -> NDArray[np.uint8]:
    """One backdrop: ``(MASTER, MASTER, 3)`` uint8.

    Raises:
        ValueError: on an unknown background or variant.
    """
    horizon = horizon_of(background, variant)
    image = _PAINTERS[background](_rng(background, variant), horizon)
    return (image.clip(0, 1) * 255).round().astype(np.uint8)
