"""Captions say only what is true, and the parser reads all of it back."""

import pytest

from unimm.data.world.atoms import Atom, canonical_atom, scene_atoms
from unimm.data.world.captions import CAPTION_TASKS, LEVELS, sample_caption_scene
from unimm.data.world.parse import parse_caption
from unimm.data.world.scene import STYLES, sample_rng
from unimm.data.world.splits import Split


@pytest.mark.parametrize("task", CAPTION_TASKS)
@pytest.mark.parametrize("level", LEVELS)
def test_captions_are_true_and_read_back(task, level):
    for split in Split:
        for index in range(50):
            rng = sample_rng(21, split, index)
            scene, caption, atoms = sample_caption_scene(
                rng, split, task=task, level=level, styles=STYLES
            )
            assert parse_caption(caption) == atoms, caption
            assert atoms <= scene_atoms(scene), caption


def test_descriptive_captions_say_every_figure_and_the_background():
    for index in range(200):
        scene, caption, atoms = sample_caption_scene(
            sample_rng(22, 0, index), Split.TRAIN, level="descriptive"
        )
        says = {"exists", "colour", "headwear", "background"}
        truth = {atom for atom in scene_atoms(scene) if atom.kind in says}
        assert {atom for atom in atoms if atom.kind in says} == truth, caption


def test_tasks_show_what_they_are_for():
    def draw(task, split=Split.TRAIN):
        return [
            sample_caption_scene(sample_rng(23, split, i), split, task=task) for i in range(150)
        ]

    assert all(any(a.kind == "count" for a in atoms) for _, _, atoms in draw("counting"))
    assert all(any(a.kind == "relation" for a in atoms) for _, _, atoms in draw("position"))
    assert all(any(a.kind == "background" for a in atoms) for _, _, atoms in draw("background"))
    for _, _, atoms in draw("colour_binding"):
        assert len({a.value for a in atoms if a.kind == "colour"}) == 2
    assert max(len(scene.placed) for scene, _, _ in draw("counting")) == 5
    assert max(len(scene.placed) for scene, _, _ in draw("counting", Split.HELDOUT)) == 7


def test_a_third_of_training_captions_is_about_groups():
    scenes = [sample_caption_scene(sample_rng(24, 0, i), Split.TRAIN).scene for i in range(1000)]
    groups = 0
    for scene in scenes:
        kinds = [placed.figure.kind for placed in scene.placed]
        groups += len(set(kinds)) < len(kinds)
    assert 0.25 < groups / len(scenes) < 0.35


def test_reads_sentences_that_no_template_writes():
    text = "Two small red mice and a fox wearing a top hat. The fox is blue, by the sea"
    atoms = parse_caption(text)
    assert {
        Atom("count", "mouse", "2"),
        Atom("size", "mouse", "small"),
        Atom("colour", "mouse", "red"),
        Atom("headwear", "fox", "top hat"),
        Atom("colour", "fox", "blue"),
        Atom("background", value="beach"),
    } <= atoms
    assert parse_caption("xylophones of the void") == set()


def test_mirrored_relations_are_one_statement():
    left = Atom("relation", "ball", "left of", "cup")
    assert canonical_atom(Atom("relation", "cup", "right of", "ball")) == left
    assert canonical_atom(left) == left


def test_unknown_names_are_refused():
    rng = sample_rng(0, 0, 0)
    with pytest.raises(ValueError, match="unknown caption task 'dance'"):
        sample_caption_scene(rng, Split.TRAIN, task="dance")
    with pytest.raises(ValueError, match="unknown caption level 'loud'"):
        sample_caption_scene(rng, Split.TRAIN, level="loud")
    with pytest.raises(ValueError, match="unknown kind of atom"):
        Atom("smell", "rose")
