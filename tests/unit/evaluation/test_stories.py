from dataclasses import replace

import numpy as np
import pytest

from unimm.data.world.splits import Split
from unimm.evaluation.stories import by_distance, score_story, summarise, with_look_of
from unimm.evaluation.story_sets import story_tasks
from unimm.judges.sightings import Detection, Sighting


def detection(kind: str, tint: str, headwear: str = "none", side: float = 0.5) -> Detection:
    return Detection(
        kind=kind,
        tint=tint,
        headwear=headwear,
        style="3d",
        size="medium",
        box=(0.0, 0.0, side, side),
        score=0.9,
        probabilities=np.zeros(0),
    )


def true_sighting(page: dict) -> Sighting:
    """What a perfect picture of a page shows."""
    characters = [detection(x["species"], x["tint"], x["headwear"]) for x in page["characters"]]
    objects = [detection(x["kind"], x["tint"], side=0.3) for x in page["objects"]]
    return Sighting(page["background"], characters + objects)


def scores_of(name: str, num: int = 6, split: Split = Split.VALIDATION, change=lambda x: x):
    tasks = story_tasks(name, split, num=num, seed=3)
    return [
        score
        for task in tasks
        for score in score_story(
            task.truth,
            [change(true_sighting(page)) for page in task.truth["pages"]],
            story=task.number,
            first_page=task.first_page,
        )
    ]


@pytest.mark.parametrize("name", ["words", "pair", "picture", "swapped"])
def test_perfect_pictures_are_all_right(name: str) -> None:
    tables = summarise(scores_of(name))
    for rates in tables.values():
        assert all(rate.value == 1.0 for rate in rates.values()), tables
    assert tables["alone"]["all"].units <= 6
    assert ("together" in tables) == (name == "pair")
    assert ("introduction" in tables) == (name != "picture")


def test_a_wrong_tint_is_wrong_in_tint_and_all_only() -> None:
    def bleach(sighting: Sighting) -> Sighting:
        figures = [replace(x, tint="white") if x.is_character else x for x in sighting.detections]
        return Sighting(sighting.background, figures)

    rates = summarise(scores_of("words", change=bleach))["alone"]
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
    rates = summarise(score_story(tasks[0].truth, drawn, story=0))
    assert rates["introduction"]["all"].value == 1.0
    assert rates["alone"]["all"].value == 0.0 and rates["alone"]["all"].total == 3
    assert rates["pages"]["background"].value == 0.25
    with pytest.raises(ValueError, match="None"):
        score_story(tasks[0].truth, drawn[:2], story=0)


def test_swapping_hides_the_named_look_and_shows_the_other() -> None:
    plain = story_tasks("words", Split.HELDOUT, num=8, seed=5)
    swapped = story_tasks("swapped", Split.HELDOUT, num=8, seed=5)
    for before, after in zip(plain, swapped, strict=True):
        other = plain[after.shown]
        assert other.number != before.number
        assert after.page_texts == (other.page_texts[0], *before.page_texts[1:])
        look = with_look_of(after.truth, other.truth)["pages"][2]["characters"][0]
        assert look["name"] == before.truth["characters"][0]["name"]
        for attribute in ("species", "tint", "headwear"):
            assert look[attribute] == other.truth["characters"][0][attribute]


def test_decay_is_told_by_page() -> None:
    rates = by_distance(scores_of("words"))
    assert list(rates) == ["page 2", "page 3", "page 4"]


def test_texts_of_later_pages_never_say_a_carried_look() -> None:
    for task in story_tasks("words", Split.VALIDATION, num=20, seed=9):
        species = task.truth["characters"][0]["species"]
        for text in task.page_texts[1:]:
            assert species not in text.lower().split()
