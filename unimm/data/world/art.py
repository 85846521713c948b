"""Sprites: the art pack, tints and headwear, composed to what a figure looks like.

A composed sprite is a square canvas: the figure stands at ``FOOT`` in the middle, with head room
for headwear and a soft contact shadow at its feet. Colours are premultiplied by alpha.
"""

import json
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from unimm.data.world.scene import HEADWEAR, NATURAL, NO_HEADWEAR, SPECIES, STYLES, Figure

CANVAS = 160  # side of a composed sprite in pixels
UNIT = 92  # height of a face, longest side of an object, on the canvas
FOOT = 151  # row on which a figure stands
NUM_KEYPOINTS = 8
SHADOW = 0.4  # alpha in the middle of the contact shadow
SOLID = 0.6  # composed alpha above which a pixel is the figure: no shadow reaches it

# sRGB in [0, 1]; Lab distances to each other and to the backgrounds are held by a test.
TINTS: dict[str, tuple[float, float, float]] = {
    "red": (0.88, 0.10, 0.14),
    "orange": (1.00, 0.52, 0.04),
    "yellow": (1.00, 0.87, 0.12),
    "green": (0.10, 0.62, 0.22),
    "blue": (0.12, 0.38, 0.95),
    "purple": (0.50, 0.20, 0.80),
    "pink": (1.00, 0.52, 0.76),
    "brown": (0.50, 0.29, 0.15),
    "black": (0.18, 0.18, 0.21),
    "white": (0.97, 0.97, 1.00),
}
TINT_MEAN = 0.62  # luminance of every sprite's mean before it is coloured
TINT_KNEE = 0.72  # lowest luminance above which white is mixed in

# Headwear: width as a share of the face's, and the share of its height below the top of the head.
_HAT_FIT = {
    "crown": (0.58, 0.16),
    "top hat": (0.70, 0.14),
    "cap": (0.72, 0.17),
    "graduation cap": (0.80, 0.30),
    "sun hat": (0.92, 0.26),
}


@dataclass(frozen=True)
class Sprite:
    """A composed figure.

    Attributes:
        rgba: ``(4, CANVAS, CANVAS)`` float32 in [0, 1], premultiplied, with shadow.
        window: left, top, right, bottom of everything drawn, in canvas pixels.
        box: the same of the figure alone (headwear included, shadow not).
        keypoints: ``(NUM_KEYPOINTS, 2)`` canvas x, y of opaque points, headwear left out.
    """

    rgba: Tensor
    window: tuple[float, float, float, float]
    box: tuple[float, float, float, float]
    keypoints: np.ndarray


@cache
def load_art(style: str) -> dict[str, Tensor]:
    """Read one style's sprites: name to ``(4, size, size)`` float32, premultiplied.

    Args:
        style: one of ``STYLES``.

    Raises:
        ValueError: on an unknown style.
    """
    if style not in STYLES:
        raise ValueError(f"unknown style {style!r}; known: {STYLES}")
    folder = files("unimm.assets") / "art"
    manifest = json.loads((folder / "manifest.json").read_text())
    size, columns = manifest["size"], manifest["columns"]
    with (folder / f"{style}.webp").open("rb") as file:
        pixels = np.asarray(Image.open(file).convert("RGBA"))
    atlas = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255  # (4, H, W)
    atlas[:3] *= atlas[3:]
    cells = atlas.unfold(1, size, size).unfold(2, size, size).flatten(1, 2)  # (4, n, size, size)
    assert cells.shape[1] >= columns
    return {name: cells[:, i].contiguous() for i, name in enumerate(manifest["names"])}


def tinted(sprite: Tensor, tint: str) -> Tensor:
    """Colour a premultiplied sprite ``(4, H, W)``, keeping its shading and features.

    Luminance is bent so that its mean is ``TINT_MEAN`` for every sprite, then mapped from black
    over the colour to white.
    """
    if tint == NATURAL:
        return sprite
    alpha = sprite[3]
    colour = sprite[:3] / alpha.clamp(min=1e-4)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    luminance = (colour * weights).sum(0).clamp(0.02, 1.0)
    low, high = 0.1, 6.0
    for _ in range(12):  # the mean falls with the exponent
        middle = (low * high) ** 0.5
        mean = (luminance**middle * alpha).sum() / alpha.sum()
        low, high = (middle, high) if mean > TINT_MEAN else (low, middle)
    luminance = luminance**middle
    # A white face must take the colour: only the brightest fifth may turn to white.
    bright = float(luminance[alpha > 0.5].quantile(0.8))
    knee = max(TINT_KNEE, min(bright, 0.98))
    most = 0.55 * min(1.0, 6 * (1 - bright))
    white = ((luminance - knee) / (1 - knee)).clamp(0, 1) ** 1.5 * most
    full = (TINT_KNEE + knee) / 2
    base = torch.tensor(TINTS[tint])[:, None, None] * (luminance / full).clamp(max=1)
    return torch.cat([(base + (1 - base) * white) * alpha, alpha[None]])


def _extent(mask: Tensor) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of a ``(H, W)`` bool mask; right and bottom are exclusive."""
    columns, rows = mask.any(0).nonzero(), mask.any(1).nonzero()
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _trimmed(sprite: Tensor) -> Tensor:
    left, top, right, bottom = _extent(sprite[3] > 0.1)
    return sprite[:, top:bottom, left:right]


def _resized(sprite: Tensor, height: float, width: float) -> Tensor:
    size = (max(1, round(height)), max(1, round(width)))
    out = interpolate(sprite[None], size=size, mode="bicubic", antialias=True)[0]
    alpha = out[3:].clamp(0, 1)
    return torch.cat([torch.minimum(out[:3].clamp(min=0), alpha), alpha])


def _paste(canvas: Tensor, sprite: Tensor, left: int, top: int) -> None:
    height, width = sprite.shape[1:]
    assert left >= 0 and top >= 0 and left + width <= CANVAS and top + height <= CANVAS
    window = canvas[:, top : top + height, left : left + width]
    window.mul_(1 - sprite[3:]).add_(sprite)


def _shadow(alpha: Tensor) -> Tensor:
    """A soft ellipse where the figure touches the ground; ``(CANVAS, CANVAS)`` alpha."""
    feet = alpha[FOOT - UNIT // 6 : FOOT] > 0.5
    left, _, right, _ = _extent(feet)
    middle, half = (left + right) / 2, max(0.62 * (right - left), 0.18 * UNIT)
    half = min(half, middle - 2, CANVAS - 2 - middle)
    grid = torch.arange(CANVAS) + 0.5
    x, y = (grid[None] - middle) / half, (grid[:, None] - (FOOT - 2)) / 9.0
    return SHADOW * (1 - x**2 - y**2).clamp(min=0) ** 0.8


def _keypoints(alpha: Tensor) -> np.ndarray:
    """Farthest-point sample of a figure's well covered pixels, from the middle outwards."""
    covered = -torch.nn.functional.max_pool2d(-alpha[None], 7, stride=1, padding=3)[0] > 0.95
    if int(covered.sum()) < NUM_KEYPOINTS:
        covered = alpha > 0.5
    points = covered.nonzero().flip(1).double().numpy() + 0.5  # x, y
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmin())]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < NUM_KEYPOINTS:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return points[chosen].astype(np.float32)


@lru_cache(maxsize=512)
def _standing(style: str, kind: str) -> Tensor:
    """One untinted sprite without headwear, scaled and put on the canvas."""
    sprite = _trimmed(load_art(style)[kind])
    height, width = sprite.shape[1:]
    scale = UNIT / (height if kind in SPECIES else max(height, width))
    sprite = _resized(sprite, height * scale, width * scale)
    canvas = torch.zeros(4, CANVAS, CANVAS)
    _paste(canvas, sprite, (CANVAS - sprite.shape[2]) // 2, FOOT - sprite.shape[1])
    return canvas


def _wear(canvas: Tensor, kind: str, style: str, headwear: str) -> None:
    """Put headwear on the first row that is mostly head, so that nothing floats.

    Ears are narrow and stay beside or behind it; a frog's eyes are wide and stay below it.
    """
    left, _, right, _ = _extent(canvas[3] > 0.5)
    middle = CANVAS // 2
    reach = 5 if kind == "rabbit" else UNIT // 3  # its ears are long: between them
    head = int((canvas[3, :, middle - reach : middle + reach].mean(1) > 0.55).nonzero()[0])
    share, overlap = _HAT_FIT[headwear]
    hat = _trimmed(load_art(style)[headwear])
    width = share * min(right - left, 1.08 * UNIT)
    hat = _resized(hat, hat.shape[1] * width / hat.shape[2], width)
    top = head + round(overlap * hat.shape[1]) - hat.shape[1]
    _paste(canvas, hat, middle - hat.shape[2] // 2, top)


def compose(figure: Figure) -> Sprite:
    """Draw a figure: tint, headwear, contact shadow, and its points and boxes."""
    standing = _standing(figure.style, figure.kind)
    canvas = tinted(standing, figure.tint).clone()
    if figure.headwear != NO_HEADWEAR:
        assert figure.headwear in HEADWEAR
        _wear(canvas, figure.kind, figure.style, figure.headwear)
    box = _extent(canvas[3] > 0.5)
    keypoints = _keypoints(standing[3])
    canvas[3] += _shadow(canvas[3]) * (1 - canvas[3])
    window = _extent(canvas[3] > 1 / 255)
    return Sprite(canvas, window, box, keypoints)


def composed_sprite(figure: Figure) -> Tensor:
    """A figure's picture: ``(4, CANVAS, CANVAS)`` float32 in [0, 1], premultiplied by alpha."""
    return compose(figure).rgba


@dataclass(frozen=True)
class Extent:
    """How far a figure reaches from the point where it stands, in units of its own size.

    One unit is a face's height or an object's longest side; ``up`` counts headwear too.
    """

    left: float
    right: float
    up: float
    height: float


@lru_cache(maxsize=4096)
def extent_of(style: str, kind: str, headwear: str) -> Extent:
    """Extent of a figure; its tint does not matter."""
    left, top, right, _ = compose(Figure(kind=kind, style=style, headwear=headwear)).box
    face = _extent(_standing(style, kind)[3] > 0.5)
    return Extent(
        left=(CANVAS / 2 - left) / UNIT,
        right=(right - CANVAS / 2) / UNIT,
        up=(FOOT - top) / UNIT,
        height=(FOOT - face[1]) / UNIT,
    )
