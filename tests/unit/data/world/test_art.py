"""Art: complete, tints apart, nothing cut off or floating."""

import json
from importlib.resources import files

import numpy as np
import pytest
import torch

from unimm.data.world.art import CANVAS, FOOT, TINTS, compose, composed_sprite, load_art
from unimm.data.world.backdrops import MASTER, NUM_VARIANTS, backdrop, horizon_of
from unimm.data.world.scene import (
    BACKGROUNDS,
    CHARACTER_TINTS,
    COLOURS,
    HEADWEAR,
    OBJECTS,
    SPECIES,
    STYLES,
    Figure,
)


def lab(rgb) -> np.ndarray:
    """CIE Lab of sRGB colours in [0, 1], D65; ``(..., 3)``."""
    rgb = np.asarray(rgb, dtype=np.float64)
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def mean_colour(figure: Figure) -> np.ndarray:
    sprite = compose(figure).rgba
    solid = sprite[3] > 0.99
    return sprite[:3, solid].mean(1).numpy()


@pytest.fixture(scope="module")
def tint_colours() -> dict[str, np.ndarray]:
    """Mean of a few tinted objects, as they are drawn, in Lab."""
    kinds = ("apple", "ball", "house", "car")
    return {
        tint: lab([mean_colour(Figure(kind=kind, tint=tint)) for kind in kinds]).mean(0)
        for tint in COLOURS
    }


@pytest.fixture(scope="module")
def ground_colours() -> dict[str, np.ndarray]:
    """Mean of every background's ground, in Lab."""

    def ground(name: str, variant: int) -> np.ndarray:
        start = int((horizon_of(name, variant) + 0.15) * MASTER)
        return backdrop(name, variant)[start:].mean((0, 1)) / 255

    return {
        name: lab([ground(name, v) for v in range(0, NUM_VARIANTS, 4)]).mean(0)
        for name in BACKGROUNDS
    }


def test_pack_holds_every_sprite_in_every_style_and_is_small():
    for style in STYLES:
        art = load_art(style)
        assert set(art) == set(SPECIES) | set(HEADWEAR) | set(OBJECTS)
        for name, sprite in art.items():
            share = float((sprite[3] > 0.5).float().mean())
            assert 0.08 < share < 0.95, (style, name, share)
            assert bool((sprite[:3] <= sprite[3:] + 1e-5).all()), "colours are premultiplied"
    folder = files("unimm.assets") / "art"
    assert sum(len((folder / f"{style}.webp").read_bytes()) for style in STYLES) < 3_000_000
    assert json.loads((folder / "manifest.json").read_text())["packages"].keys() == set(STYLES)


def test_tints_are_apart(tint_colours):
    for i, one in enumerate(COLOURS):
        for other in COLOURS[i + 1 :]:
            distance = np.linalg.norm(tint_colours[one] - tint_colours[other])
            assert distance >= 24, (one, other, distance)


def test_tints_are_apart_from_every_ground(tint_colours, ground_colours):
    for name, ground in ground_colours.items():
        for tint, colour in tint_colours.items():
            distance = np.linalg.norm(colour - ground)
            assert distance >= 13, (tint, name, distance)


@pytest.mark.parametrize("style", STYLES)
def test_a_tint_has_its_hue_on_every_face_and_keeps_the_features(style):
    for kind in SPECIES:
        for tint in CHARACTER_TINTS[1:]:
            sprite = compose(Figure(kind=kind, tint=tint, style=style)).rgba
            solid = sprite[3] > 0.99
            colours = lab(sprite[:3, solid].T.numpy())
            nearest = min(
                COLOURS[:7],
                key=lambda name: float(np.linalg.norm((colours.mean(0) - lab(TINTS[name]))[1:])),
            )
            assert nearest == tint, (style, kind, tint, nearest)
            assert colours[:, 0].std() > 4, (style, kind, tint, "a flat blob")


@pytest.mark.parametrize("style", STYLES)
def test_headwear_is_whole_and_touches_the_head(style):
    for kind in SPECIES:
        bare = compose(Figure(kind=kind, style=style))
        for headwear in HEADWEAR:
            worn = compose(Figure(kind=kind, headwear=headwear, style=style))
            left, top, right, bottom = worn.box
            assert left > 0 and right < CANVAS and FOOT - 2 < bottom <= FOOT
            assert 0 < top <= bare.box[1], "above the head, inside the canvas"
            rows = (worn.rgba[3] > 0.5).any(1)
            assert bool(rows[int(top) : int(bottom)].all()), (kind, headwear, "floats")
            # Most of the face stays as it was, so the species can be told.
            changed = (worn.rgba - bare.rgba).abs().amax(0) > 0.05
            face = bare.rgba[3] > 0.99
            hidden = float((changed & face).sum() / face.sum())
            assert hidden < 0.5, (style, kind, headwear, hidden)


def test_keypoints_lie_on_the_figure_and_do_not_move_with_headwear():
    bare = compose(Figure(kind="cat"))
    worn = compose(Figure(kind="cat", headwear="top hat", tint="blue"))
    assert np.array_equal(bare.keypoints, worn.keypoints)
    x, y = bare.keypoints.astype(int).T
    assert float(bare.rgba[3, y, x].min()) > 0.95
    assert len(np.unique(bare.keypoints, axis=0)) == len(bare.keypoints)


def test_sprite_is_premultiplied_and_the_shadow_is_black():
    sprite = composed_sprite(Figure(kind="apple", tint="green"))
    assert sprite.shape == (4, CANVAS, CANVAS)
    assert bool((sprite[:3] <= sprite[3:] + 1e-5).all())
    below = sprite[:, FOOT + 1]
    assert float(below[3].max()) > 0.05 and torch.equal(below[:3], torch.zeros_like(below[:3]))


def test_backdrops_differ_and_keep_the_promised_horizon():
    horizons = {horizon_of(name, v) for name in BACKGROUNDS for v in range(NUM_VARIANTS)}
    assert len(horizons) == NUM_VARIANTS
    assert min(horizons) >= 0.3 and max(horizons) <= 0.5
    pictures = {backdrop(name, v).tobytes() for name in BACKGROUNDS for v in range(0, 16, 5)}
    assert len(pictures) == len(BACKGROUNDS) * 4
    with pytest.raises(ValueError, match="moon"):
        backdrop("moon", 0)
