"""Stories that a model writes are judged by what their own text says."""

from dataclasses import replace

import pytest
from sightings import detection, judged, true_sighting

from unimm.data.world.scene import sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import sample_story
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_sets import story_task, story_tasks
from unimm.evaluation.story_written import told_change, without_restated, written_task
from unimm.judges.sightings import Sighting


def test_every_change_of_a_look_is_read_and_nothing_else() -> None:
    num_changes = 0
    for index in range(400):
        story = sample_story(
            sample_rng(3, int(Split.TRAIN), index),
            Split.TRAIN,
            num_characters=1,
            has_change=index % 2 == 0,
            introduction="both",
        )
        before = {"tint": story.characters[0].tint, "headwear": story.characters[0].headwear}
        for page in story.pages[1:]:
            figure = page.scene.placed[page.shown[0].placed].figure
            now = {"tint": figure.tint, "headwear": figure.headwear}
            change = {name: word for name, word in now.items() if word != before[name]}
            assert told_change(page.text) == change, page.text
            num_changes += len(change)
            before = now
    assert num_changes >= 200


def test_the_world_s_own_text_makes_the_world_s_own_truth() -> None:
    for index in range(60):
        story = sample_story(
            sample_rng(4, int(Split.TRAIN), index),
            Split.TRAIN,
            num_characters=1,
            has_change=index % 2 == 0,
            introduction="both",
        )
        task = story_task(index, story)
        read = written_task(task, task.page_texts)
        for page, own in zip(read.truth["pages"], task.truth["pages"], strict=True):
            assert [x["name"] for x in page["characters"]] == [x["name"] for x in own["characters"]]
            for x, y in zip(page["characters"], own["characters"], strict=True):
                assert all(x[name] == y[name] for name in ("species", "tint", "headwear"))
            looks = [fact for fact in own["carried"] if fact[0] == own["characters"][0]["name"]]
            assert [x for x in page["carried"] if x[0] != "background"] == looks
        sightings = [true_sighting(page) for page in task.truth["pages"]]
        tables = measure_stories([judged(read, sightings=sightings)])
        assert tables["alone"]["all"].value == 1.0
        assert tables["text atoms"]["all"].value == 1.0


@pytest.mark.parametrize(
    "said", ["Mia, a blue fox with a crown, sleeps.", "Mia sleeps. Mia is a blue fox with a crown."]
)
def test_a_look_that_is_said_again_changes_nothing(said: str) -> None:
    left, is_said = without_restated(said, "Mia")
    assert is_said and "fox" not in left and "crown" not in left and not told_change(left)
    assert without_restated("Mia is happy.", "Mia") == ("Mia is happy.", False)


def test_looks_are_judged_until_another_character_comes_in() -> None:
    (task,) = story_tasks("written", Split.VALIDATION, num=1, seed=3)
    name = task.truth["characters"][0]["name"]
    texts = [task.page_texts[0], f"{name} laughs.", f"{name} meets Bo, a red cat.", "Bo sings."]
    read = written_task(task, texts)
    assert [len(page["characters"]) for page in read.truth["pages"]] == [1, 1, 0, 0]
    cat = Sighting("night", [detection("cat", "red")])
    tables = measure_stories([judged(replace(read), sightings=[cat] * 4)])
    assert tables["alone"]["all"].total == 1
    assert tables["text atoms"]["exists"].total >= 2  # page 1's own and the cat
    assert tables["text atoms"]["colour"].value < 1.0 or tables["text atoms"]["exists"].value < 1.0


def test_a_look_said_again_brings_in_nobody_and_changes_nothing() -> None:
    (task,) = story_tasks("written", Split.VALIDATION, num=1, seed=3)
    character = task.truth["characters"][0]
    name = character["name"]
    wrong = "Now {}, a {} cow with a top hat, sings. {} the {} cow laughs."
    texts = [task.page_texts[0], wrong.format(name, "red", name, "red"), f"{name} sleeps."]
    pages = written_task(task, texts).truth["pages"]
    assert [len(page["characters"]) for page in pages] == [1, 1, 1]
    for page in pages:
        assert all(page["characters"][0][x] == character[x] for x in ("species", "tint"))
    assert not [fact for fact in pages[1]["carried"] if fact[0] == name]  # its text says it
    assert {fact[3] for fact in pages[2]["carried"] if fact[0] == name} == {1}


def test_a_place_lasts_until_the_text_names_another() -> None:
    (task,) = story_tasks("written", Split.VALIDATION, num=1, seed=3)
    texts = [
        "Mia is a blue fox in the snow.",
        "She laughs.",
        "She walks to the beach.",
        "Hm.",
    ]
    pages = written_task(task, texts).truth["pages"]
    assert [page["background"] for page in pages] == ["snow", "snow", "beach", "beach"]
    facts = [[x for x in page["carried"] if x[0] == "background"] for page in pages]
    place = "background"
    assert facts == [[], [[place, place, "snow", 0]], [], [[place, place, "beach", 2]]]
