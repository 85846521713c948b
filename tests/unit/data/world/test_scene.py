"""Scenes as data: strict, canonical, one stream a sample."""

import json

import pytest

from unimm.data.world.scene import Figure, Placed, Scene, sample_rng

FIGURE = Figure(kind="fox", tint="blue", headwear="crown")
SCENE = Scene(
    background="night",
    variant=3,
    horizon=0.4,
    camera_height=0.8,
    placed=(Placed(figure=FIGURE, x=0.5, y=0.9), Placed(figure=Figure(kind="apple"), x=0.2, y=0.8)),
)


def test_json_round_trip_is_exact_and_canonical():
    text = SCENE.to_json()
    assert Scene.from_json(text) == SCENE
    shuffled = json.dumps(dict(reversed(json.loads(text).items())))
    assert Scene.from_json(shuffled).to_json() == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "dragon"}, "dragon"),
        ({"kind": "fox", "tint": "black"}, "black"),
        ({"kind": "apple", "headwear": "crown"}, "crown"),
        ({"kind": "fox", "style": "oil"}, "oil"),
    ],
)
def test_impossible_figures_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Figure(**fields)


def test_unknown_fields_are_refused():
    raw = json.loads(SCENE.to_json()) | {"weather": "rain"}
    with pytest.raises(TypeError, match="weather"):
        Scene.from_json(json.dumps(raw))


def test_streams_depend_on_all_of_seed_split_and_index():
    draws = {
        tuple(sample_rng(*key).integers(1 << 40, size=4).tolist())
        for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 1))
    }
    assert len(draws) == 4
