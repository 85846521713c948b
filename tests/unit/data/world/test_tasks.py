"""Documents of the world: their shares, their form, their truth."""

import json
from collections import Counter

import pytest

from unimm.data.world.atoms import scene_atoms
from unimm.data.world.captions import sample_caption_scene
from unimm.data.world.compose import heldout_facts
from unimm.data.world.edits import EDIT_ACTIONS, sample_edit
from unimm.data.world.parse import parse_caption
from unimm.data.world.questions import sample_question
from unimm.data.world.scene import COLOURS, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.tasks import (
    DOCUMENT_KINDS,
    ScenePart,
    WorldMix,
    document_at,
    sample_document,
)
from unimm.data.world.words import NUMBER_WORDS, PLURALS


def test_kinds_come_in_their_shares_with_plain_truth():
    documents = [document_at(41, index) for index in range(1500)]
    counts = Counter(document.kind for document in documents)
    for kind, share in WorldMix().__dict__.items():
        if kind in DOCUMENT_KINDS:
            assert counts[kind] / 1500 == pytest.approx(share, abs=0.05)
    for document in documents:
        json.dumps(document.truth)
        ends_in_drawn = isinstance(document.parts[-1], ScenePart) and document.parts[-1].is_drawn
        assert document.is_open == (document.kind in ("text_to_image", "edit"))
        assert ends_in_drawn == (document.kind != "image_to_text")


def test_documents_do_not_depend_on_order():
    one_way = [document_at(42, index) for index in range(20)]
    other_way = [document_at(42, index) for index in reversed(range(20))]
    assert one_way == other_way[::-1]
    assert one_way != [document_at(43, index) for index in range(20)]


def test_a_given_first_picture_is_only_of_picture_introductions():
    given = 0
    for index in range(300):
        document = sample_document(sample_rng(44, 0, index), Split.TRAIN, kind="story")
        pictures = [part for part in document.parts if isinstance(part, ScenePart)]
        assert all(picture.is_drawn for picture in pictures[1:])
        if not pictures[0].is_drawn:
            given += 1
            assert document.truth["introduction"] == "picture"
    assert 30 < given < 120


def test_a_mix_may_say_looks_again():
    mix = WorldMix(recapped=0.8)
    pairs = [(document_at(46, i), document_at(46, i, mix=mix)) for i in range(60)]
    changed = [kind.kind for kind, other in pairs if kind != other]
    assert set(changed) == {"story"}
    assert len(changed) > 8


def test_a_mix_may_ask_for_captions_of_two_characters():
    mix = WorldMix(story=0, text_to_image=1, image_to_text=0, edit=0, two_characters=0.3)
    documents = [document_at(47, i, mix=mix) for i in range(200)]
    pairs = [x for x in documents if x.truth["task"] == "two_characters"]
    assert 40 < len(pairs) < 80
    for document in pairs:
        caption, picture = document.parts
        assert isinstance(caption, str) and isinstance(picture, ScenePart)
        assert not heldout_facts(picture.scene)
        figures = [placed.figure for placed in picture.scene.placed]
        assert all(figure.is_character and figure.kind in caption for figure in figures)
        assert len({figure.kind for figure in figures}) == 2
    with pytest.raises(ValueError, match="two_characters is 2"):
        WorldMix(two_characters=2)


def test_answers_follow_from_the_picture():
    about = Counter()
    for index in range(800):
        rng = sample_rng(45, 0, index)
        scene = sample_caption_scene(rng, Split.TRAIN).scene
        question = sample_question(rng, scene)
        about[question.about] += 1
        truth = {(a.kind, a.subject, a.value) for a in scene_atoms(scene)}
        answer = question.answer.rstrip(".").lower()
        if question.about == "count":
            kind = next(
                k for k, p in PLURALS.items() if question.question == f"How many {p} are there?"
            )
            assert ("count", kind, str(NUMBER_WORDS.index(answer))) in truth
        elif question.about == "colour":
            kind = question.question.removeprefix("What colour is the ").rstrip("?")
            assert ("colour", kind, answer) in truth
        elif question.about == "background":
            (atom,) = parse_caption(question.answer)
            assert ("background", "", atom.value) in truth
        elif question.about == "yes_no":
            asked_atoms = parse_caption(question.question)
            exists = next(atom for atom in asked_atoms if atom.kind == "exists")
            asked = question.question.rstrip("?").split()[-1]
            is_true = ("exists", exists.subject, "") in truth
            if asked in COLOURS:
                is_true = ("colour", exists.subject, asked) in truth
            assert answer == ("yes" if is_true else "no")
    assert set(about) >= {"count", "colour", "background", "yes_no", "exists", "relation"}


@pytest.mark.parametrize("action", EDIT_ACTIONS)
def test_an_edit_changes_one_thing_and_keeps_the_rest(action):
    for index in range(60):
        edit = sample_edit(sample_rng(46, 0, index), Split.TRAIN, action=action)
        source, target = edit.source, edit.target
        assert source != target
        if action == "background":
            assert source.background != target.background
            assert source.placed == target.placed
            assert abs(source.horizon - target.horizon) < 1e-6
            continue
        assert source.background == target.background
        kept = set(source.placed) & set(target.placed)
        change = {"remove": (1, 0), "add": (0, 1)}.get(action, (1, 1))
        assert (len(source.placed) - len(kept), len(target.placed) - len(kept)) == change


def test_bad_orders_are_refused():
    rng = sample_rng(0, 0, 0)
    with pytest.raises(ValueError, match="unknown kind of document 'poem'"):
        sample_document(rng, Split.TRAIN, kind="poem")
    with pytest.raises(ValueError, match="shares of documents"):
        WorldMix(story=-1.0)
    with pytest.raises(ValueError, match="unknown styles"):
        WorldMix(styles=("oil",))
    with pytest.raises(ValueError, match="unknown edit 'dream'"):
        sample_edit(rng, Split.TRAIN, action="dream")
