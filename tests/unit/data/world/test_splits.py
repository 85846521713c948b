"""The split table is balanced and stable, and no generator leaks what it holds out."""

import pytest

from unimm.data.world import names
from unimm.data.world.captions import sample_caption_scene
from unimm.data.world.compose import heldout_facts
from unimm.data.world.edits import sample_edit
from unimm.data.world.scene import (
    CHARACTER_TINTS,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    Figure,
    Placed,
    Scene,
    sample_rng,
)
from unimm.data.world.splits import (
    HELDOUT_APPEARANCES,
    HELDOUT_PAIRS,
    Split,
    is_heldout_relation,
    stable_hash,
)
from unimm.data.world.stories import sample_story, story_heldout_facts
from unimm.data.world.tasks import ScenePart, sample_document


@pytest.mark.parametrize(("kinds", "tints"), [(SPECIES, CHARACTER_TINTS), (OBJECTS, OBJECT_TINTS)])
def test_a_tenth_of_the_pairs_is_held_out_and_everything_is_seen(kinds, tints):
    tinted = {(k, t) for k in kinds for t in tints if t != "natural"}
    assert 0.05 <= len(tinted & HELDOUT_PAIRS) / len(tinted) <= 0.13
    assert all((kind, "natural") not in HELDOUT_PAIRS for kind in kinds)
    seen = {(k, t) for k in kinds for t in tints} - HELDOUT_PAIRS
    assert {k for k, _ in seen} == set(kinds)
    assert {t for _, t in seen} == set(tints)


def test_held_out_appearances_are_of_seen_pairs():
    assert 40 <= len(HELDOUT_APPEARANCES) <= 80
    assert not {look[:2] for look in HELDOUT_APPEARANCES} & HELDOUT_PAIRS


def test_the_hash_is_the_same_everywhere():
    assert stable_hash("pair", "fox", "blue") == 3241845205206766083


def test_a_relation_and_its_mirror_are_held_out_together():
    kinds = list(OBJECTS)[:20]
    triples = [(a, b) for a in kinds for b in kinds if a != b]
    for a, b in triples:
        assert is_heldout_relation(a, "left of", b) == is_heldout_relation(b, "right of", a)
        assert is_heldout_relation(a, "behind", b) == is_heldout_relation(b, "in front of", a)
    share = sum(is_heldout_relation(a, "left of", b) for a, b in triples) / len(triples)
    assert 0.05 < share < 0.15


def test_names_are_many_distinct_and_apart():
    train, heldout = names.names_of(Split.TRAIN), names.names_of(Split.HELDOUT)
    assert len(set(train) | set(heldout)) == len(train) + len(heldout) >= 200
    assert len(heldout) >= 20
    assert {"Mia", "Momo"} <= set(train)


def test_made_names_are_endless_apart_and_unlike_listed_ones():
    def meet(split: Split, start: int) -> set[str]:
        return {names.sample_name(sample_rng(3, split, start + k), split) for k in range(2000)}

    train, heldout = meet(Split.TRAIN, 0), meet(Split.HELDOUT, 0)
    assert not train & heldout
    assert len(meet(Split.TRAIN, 5000) - train - set(names.SHE + names.HE)) > 800
    assert len(train & set(names.SHE + names.HE)) > 120


def test_held_out_facts_sees_a_leak():
    kind, tint = sorted(pair for pair in HELDOUT_PAIRS if pair[0] in OBJECTS)[0]
    placed = Placed(figure=Figure(kind=kind, tint=tint), x=0.5, y=0.8)
    scene = Scene(background="meadow", variant=0, horizon=0.34, camera_height=0.6, placed=(placed,))
    assert heldout_facts(scene) == {f"{tint} {kind}"}


def _scan(num_samples: int) -> None:
    for index in range(num_samples):
        split = (Split.TRAIN, Split.VALIDATION)[index % 2]
        rng = sample_rng(11, split, index)
        assert not heldout_facts(sample_caption_scene(rng, split).scene)
        assert not story_heldout_facts(sample_story(rng, split))
        edit = sample_edit(rng, split)
        assert not heldout_facts(edit.source) | heldout_facts(edit.target)
        for part in sample_document(rng, split).parts:
            assert isinstance(part, str) or not heldout_facts(part.scene)


def test_no_generator_leaks():
    _scan(1500)


@pytest.mark.long
def test_no_generator_leaks_in_50_thousand_samples_each():
    _scan(50_000)


def test_every_held_out_sample_holds_something_out():
    for index in range(300):
        rng = sample_rng(12, Split.HELDOUT, index)
        assert heldout_facts(sample_caption_scene(rng, Split.HELDOUT).scene)
        story = sample_story(rng, Split.HELDOUT)
        cast = {character.name for character in story.characters}
        assert all(map(names.is_heldout_name, cast))
        assert story_heldout_facts(story) - cast
        pictures = [
            part
            for part in sample_document(rng, Split.HELDOUT).parts
            if isinstance(part, ScenePart)
        ]
        assert any(heldout_facts(part.scene) for part in pictures)
