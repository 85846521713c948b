from dataclasses import replace

import pytest
from sightings import detection, judged, true_sighting

from unimm.data.world.splits import Split
from unimm.evaluation.stories import LOOKS, score_story, with_look_of
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_sets import SETS, story_tasks
from unimm.judges.sightings import Sighting


def tables_of(name: str, change=lambda x: x):
    return measure_stories(
        judged(task, change=change) for task in story_tasks(name, Split.VALIDATION, num=6, seed=3)
    )


@pytest.mark.parametrize("name", SETS)
def test_perfect_pictures_are_all_right(name: str) -> None:
    tables = tables_of(name)
    assert tables.pop("copies")["copied pages"].value == 0.0
    for rates in tables.values():
        assert all(rate.value == 1.0 for rate in rates.values()), tables
    assert tables["alone"]["all"].units <= 6
    assert ("together" in tables) == name.endswith("pair")
    assert ("introduction" in tables) == (not name.startswith("picture"))


def test_a_wrong_tint_is_wrong_in_tint_and_all_only() -> None:
    def bleach(sighting: Sighting) -> Sighting:
        figures = [replace(x, tint="white") if x.is_character else x for x in sighting.detections]
        return Sighting(sighting.background, figures)

    rates = tables_of("words", change=bleach)["alone"]
    assert rates["tint"].value == rates["all"].value == 0.0
    assert rates["species"].value == rates["headwear"].value == 1.0


def test_the_largest_character_is_the_one_guess() -> None:
    tasks = story_tasks("words", Split.VALIDATION, num=1, seed=3)
    page = tasks[0].truth["pages"][1]
    truth = {**tasks[0].truth, "pages": [page]}
    right = page["characters"][0]
    small = detection(right["species"], right["tint"], right["headwear"], side=0.2)
    other = "cat" if right["species"] != "cat" else "dog"
    wrong = detection(other, right["tint"], right["headwear"], side=0.6)
    (score,) = score_story(truth, [Sighting("snow", [small, wrong])], story=0)
    assert not score.characters[0].right["species"]
    assert score.characters[0].seen["species"] == other
    assert not score.has_right_number


def test_a_failed_picture_is_wrong_and_counted() -> None:
    tasks = story_tasks("words", Split.VALIDATION, num=1, seed=3)
    pages = tasks[0].truth["pages"]
    drawn = [true_sighting(pages[0]), None, None, None]
    rates = measure_stories([judged(tasks[0], sightings=drawn)])
    assert rates["introduction"]["all"].value == 1.0
    assert rates["alone"]["all"].value == 0.0 and rates["alone"]["all"].total == 3
    assert rates["pages"]["frame"].value == rates["pages"]["number of characters"].value == 0.25
    with pytest.raises(ValueError, match="None"):
        score_story(tasks[0].truth, drawn[:2], story=0)


def test_a_borrowed_look_is_in_characters_pages_and_facts() -> None:
    own, other = story_tasks("words", Split.HELDOUT, num=2, seed=5)
    truth = with_look_of(own.truth, other.truth)
    (lender,) = other.truth["characters"]
    for character in [truth["characters"][0], *(p["characters"][0] for p in truth["pages"])]:
        assert character["name"] == own.truth["characters"][0]["name"]
        assert {x: character[x] for x in LOOKS} == {x: lender[x] for x in LOOKS}
    for subject, attribute, value, _ in truth["pages"][2]["carried"]:
        if subject == truth["characters"][0]["name"]:
            assert value == lender[attribute]
    assert measure_stories([judged(replace(own, truth=truth))])["alone"]["all"].value == 1.0


def test_texts_of_later_pages_never_say_a_carried_look() -> None:
    for task in story_tasks("words", Split.VALIDATION, num=20, seed=9):
        species = task.truth["characters"][0]["species"]
        for text in task.page_texts[1:]:
            assert species not in text.lower().split()
