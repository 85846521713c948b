"""Placement: what was asked for holds, with margins, in the picture."""

import pytest

from unimm.data.world.art import extent_of
from unimm.data.world.geometry import apparent_size
from unimm.data.world.placement import (
    CARRIED_BY,
    LOWEST,
    MARGIN,
    least_sizes,
    place,
    relation_between,
)
from unimm.data.world.scene import (
    BACKGROUNDS,
    HEADWEAR,
    OBJECTS,
    RELATIONS,
    SPECIES,
    STYLES,
    Figure,
    sample_rng,
)

OPPOSITE = {
    "left of": "right of",
    "right of": "left of",
    "in front of": "behind",
    "behind": "in front of",
}


def cast(rng, characters: int, objects: int) -> list[Figure]:
    def pick(names):
        return [*names][rng.integers(len(names))]

    style = pick(STYLES)
    figures = [
        Figure(kind=pick(SPECIES), headwear=pick(HEADWEAR), style=style) for _ in range(characters)
    ]
    return figures + [Figure(kind=pick(OBJECTS), style=style) for _ in range(objects)]


def scenes(characters: int, objects: int, relations=(), count: int = 40, **options):
    made = []
    for index in range(2 * count):
        rng = sample_rng(5, 0, index)
        try:
            made.append(place(rng, cast(rng, characters, objects), relations=relations, **options))
        except ValueError:
            continue
        if len(made) == count:
            return made
    pytest.fail(f"{len(made)} of {2 * count} casts were placed")


@pytest.mark.parametrize(
    ("characters", "objects"), [(1, 0), (1, 1), (2, 1), (0, 3), (3, 0), (0, 7)]
)
def test_all_is_inside_the_picture_and_large_enough(characters, objects):
    for scene in scenes(characters, objects):
        least = least_sizes([placed.figure for placed in scene.placed])
        for placed, smallest in zip(scene.placed, least, strict=True):
            size = apparent_size(scene, placed)
            figure = placed.figure
            extent = extent_of(figure.style, figure.kind, figure.headwear)
            assert size >= smallest - 1e-6
            left, right = (extent.left, extent.right)[:: -1 if placed.is_flipped else 1]
            assert placed.x - left * size >= MARGIN - 1e-6
            assert placed.x + right * size <= 1 - MARGIN + 1e-6
            assert placed.y - extent.up * size >= MARGIN - 1e-6
            assert scene.horizon < placed.y <= LOWEST + 1e-6


def test_a_face_alone_or_in_company_of_one_is_at_least_56_of_128_pixels_high():
    assert least_sizes([Figure(kind="fox"), Figure(kind="cat")]) == [56 / 128] * 2
    assert least_sizes([Figure(kind="apple")] * 2) == [44 / 128] * 2
    assert least_sizes([Figure(kind="apple")] * 3) == [36 / 128] * 3
    assert least_sizes([Figure(kind="apple")] * 4) == [24 / 128] * 4


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize(("characters", "objects"), [(0, 2), (2, 0), (1, 2)])
def test_relations_hold_without_doubt(relation, characters, objects):
    for scene in scenes(characters, objects, [(0, relation, 1)]):
        assert relation in relation_between(scene, 0, 1)
        assert OPPOSITE[relation] not in relation_between(scene, 0, 1)
        assert OPPOSITE[relation] in relation_between(scene, 1, 0)


def test_beside_and_before_exclude_each_other():
    for scene in scenes(0, 4):
        for i in range(4):
            for j in range(4):
                assert i == j or len(relation_between(scene, i, j)) <= 1


def test_what_is_carried_touches_its_holder_in_front():
    for scene in scenes(1, 1, [(1, CARRIED_BY, 0)]):
        holder, thing = scene.placed
        assert thing.y > holder.y
        assert not {"left of", "right of", "behind"} & relation_between(scene, 1, 0)


def test_nearer_means_larger():
    scene = scenes(0, 2, [(0, "in front of", 1)], count=1)[0]
    front, rear = scene.placed
    same = Figure(kind="apple")
    near, far = (type(front)(figure=same, x=p.x, y=p.y) for p in (front, rear))
    assert apparent_size(scene, near) > 1.07 * apparent_size(scene, far)


def test_same_stream_same_scene_and_all_places_are_drawn():
    texts = [[s.to_json() for s in scenes(1, 1)] for _ in range(2)]
    assert texts[0] == texts[1]
    drawn = scenes(1, 0, count=80)
    assert {scene.background for scene in drawn} == set(BACKGROUNDS)
    assert len({scene.variant for scene in drawn}) > 10
    xs = [scene.placed[0].x for scene in drawn]
    assert min(xs) < 0.35 and max(xs) > 0.65


def test_background_variant_and_size_can_be_asked_for():
    rng = sample_rng(0, 0, 0)
    figure = Figure(kind="apple")
    scene = place(rng, [figure], background="night", variant=7, min_height=0.6)
    assert (scene.background, scene.variant) == ("night", 7)
    assert apparent_size(scene, scene.placed[0]) >= 0.6


def test_the_impossible_is_refused():
    rng = sample_rng(0, 0, 0)
    apples = [Figure(kind="apple")] * 2
    with pytest.raises(ValueError, match="no room"):
        place(rng, apples, relations=[(0, "left of", 1), (1, "left of", 0)])
    with pytest.raises(ValueError, match="no room"):
        place(rng, apples, min_height=0.9)
    with pytest.raises(ValueError, match="above"):
        place(rng, apples, relations=[(0, "above", 1)])
    with pytest.raises(ValueError, match="1 to 7"):
        place(rng, apples * 4)
