"""Measures between sets of pictures do what they are for: real renders, the shipped detector."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Generator, Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene
from unimm.evaluation.distribution import compare_features, features_of
from unimm.judges.corruptions import add_noise, blur
from unimm.judges.extractors import Extractor, detector_extractor
from unimm.judges.folder import load_detector
from unimm.pipeline import SHIPPED
from unimm.training.detector_scenes import sample_scenes

NUM = 192
LEVELS = (0.0, 0.33, 0.67, 1.0)


@cache
def scenes() -> list[Scene]:
    return sample_scenes(seed=77, start=0, num=3 * NUM, styles=("3d",), shares=(1.0,))


@cache
def renders() -> tuple[Tensor, ...]:
    """Three sets of renders: to compare with, fresh ones, and what a generator was trained on."""
    rgb = Renderer().render(scenes(), size=64, only_rgb=True).rgb
    return (rgb.float() / 127.5 - 1).split(NUM)


@cache
def extractor() -> Extractor:
    """The shipped detector at the size of the renders, which is enough for a ruler."""
    return replace(detector_extractor(load_detector(SHIPPED / "detector")), size=None)


def compared(generated: Tensor) -> dict[str, float]:
    real, _, train = renders()
    return compare_features(
        features(real), features(generated), train=features(train), name="detector", seed=0
    )


def features(pixels: Tensor) -> Tensor:
    return features_of(extractor(), pixels.split(64))


def blurred(pixels: Tensor, level: float) -> Tensor:
    return blur(pixels, pixels.new_full((len(pixels),), 0.2 + 2 * level), Generator())


def noisy(pixels: Tensor, level: float) -> Tensor:
    strength = pixels.new_full((len(pixels),), 0.3 * level)
    return add_noise(pixels, strength, Generator().manual_seed(0))


def shifted(pixels: Tensor, level: float) -> Tensor:
    return (pixels + torch.tensor([0.5, 0.0, -0.5]).view(1, 3, 1, 1) * level).clamp(-1, 1)


def dropped(pixels: Tensor, level: float) -> Tensor:
    """Scenes of ever fewer kinds of figures, repeated to as many."""
    kinds = [scene.placed[0].figure.kind for scene in scenes()[NUM : 2 * NUM]]
    number = {kind: i for i, kind in enumerate(sorted(set(kinds)))}
    kept = [i for i, kind in enumerate(kinds) if number[kind] <= len(number) * (1 - level) + 2]
    return pixels[torch.tensor(kept).repeat(NUM)[:NUM]]


@pytest.mark.parametrize("damage", [blurred, noisy, shifted, dropped])
def test_distances_rise_with_every_damage(damage) -> None:
    fresh = renders()[1]
    tables = [compared(damage(fresh, level)) for level in LEVELS]
    for name in ("frechet_detector", "kernel_detector"):
        values = [table[name] for table in tables]
        assert all(low < high for low, high in pairwise(values)), (name, values)
    assert tables[-1]["recall_detector"] < 0.6 * tables[0]["recall_detector"]


def test_real_against_real_is_zero_within_its_error() -> None:
    scores = compared(renders()[1])
    assert set(scores) == {
        *(f"{name}_detector" for name in ("frechet", "kernel", "precision", "recall")),
        *(f"{name}_detector" for name in ("authentic", "nearest_ratio")),
        "kernel_detector_std",
    }
    assert abs(scores["kernel_detector"]) < 2 * scores["kernel_detector_std"]
    assert scores["precision_detector"] > 0.6 and scores["recall_detector"] > 0.6
    assert scores["authentic_detector"] == pytest.approx(0.5, abs=0.15)
    assert scores["nearest_ratio_detector"] == pytest.approx(1, abs=0.1)


def test_a_memoriser_of_the_training_set_is_exposed() -> None:
    fresh, train = compared(renders()[1]), renders()[2]
    recited = compared(noisy(train, 0.03))
    # Distances and precision see nothing wrong with it.
    assert recited["frechet_detector"] < 1.3 * fresh["frechet_detector"]
    assert recited["precision_detector"] > 0.9 * fresh["precision_detector"]
    assert recited["authentic_detector"] < 0.1
    assert recited["nearest_ratio_detector"] < 0.5 * fresh["nearest_ratio_detector"]


def test_too_few_pictures_for_the_features_are_refused() -> None:
    real, fresh, _ = renders()
    with pytest.raises(ValueError, match="64 pictures are too few"):
        compare_features(features(real), features(fresh[:64]), name="detector", seed=0)
