"""Controls change one thing of a story, and what follows from it."""

import re
from dataclasses import replace

import pytest
from sightings import detection, judged

from unimm.data.world.names import pronoun_of
from unimm.data.world.splits import Split
from unimm.evaluation.stories import LOOKS
from unimm.evaluation.story_controls import (
    control_tasks,
    described,
    exchange_names,
    exchange_pictures,
    exchange_places,
)
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_sets import CONTROLS, story_tasks
from unimm.judges.sightings import Sighting


@pytest.mark.parametrize("name", CONTROLS)
def test_scenes_of_a_control_show_its_truth(name: str) -> None:
    for task in control_tasks(name, Split.HELDOUT, num=5, seed=3):
        assert len(task.scenes) == len(task.page_texts) == len(task.truth["pages"])
        for scene, page in zip(task.scenes, task.truth["pages"], strict=True):
            shown = [x.figure for x in scene.placed if x.figure.is_character]
            looks = [(x.kind, x.tint, x.headwear) for x in shown]
            assert looks == [tuple(x[n] for n in LOOKS) for x in page["characters"]]
        if name != "first pages exchanged":
            assert measure_stories([judged(task)])["pages"]["frame"].value == 1.0


def test_first_pages_exchanged_hide_the_named_look() -> None:
    plain = story_tasks("words", Split.HELDOUT, num=6, seed=3)
    for before, task in zip(
        plain, control_tasks("first pages exchanged", Split.HELDOUT, num=6, seed=3), strict=True
    ):
        other = plain[before.number - 1]
        assert task.page_texts == (other.page_texts[0], *before.page_texts[1:])
        assert task.truth["pages"][2] == before.truth["pages"][2]
        assert task.other_truth is not None
        shown = task.other_truth["pages"][2]["characters"][0]
        assert shown["name"] == before.truth["characters"][0]["name"]
        assert {x: shown[x] for x in LOOKS} == {x: other.truth["characters"][0][x] for x in LOOKS}


def test_exchanged_names_leave_introductions_and_turn_later_pages() -> None:
    for task in control_tasks("names exchanged", Split.VALIDATION, num=6, seed=3):
        first, second = (x["name"] for x in task.truth["characters"])
        assert pronoun_of(first) == pronoun_of(second)
        assert task.other_truth is not None
        is_introduced: set[str] = set()
        pages = zip(task.page_texts, task.truth["pages"], task.other_truth["pages"], strict=True)
        for text, page, before in pages:
            names = {x["name"] for x in page["characters"]}
            if len(is_introduced) == 2:
                assert [x["name"] for x in page["characters"]] != [
                    x["name"] for x in before["characters"]
                ]
                assert names <= set(re.findall(r"\w+", text))
            else:
                assert page == before
            is_introduced |= names


def test_exchanged_pictures_change_the_look_and_nothing_else() -> None:
    plain = story_tasks("picture", Split.VALIDATION, num=4, seed=3)
    for before, task in zip(plain, exchange_pictures(plain), strict=True):
        assert task.page_texts == before.page_texts
        assert task.given is not None and before.given is not None
        assert [x.x for x in task.given.placed] == [x.x for x in before.given.placed]
        assert task.given.background == before.given.background
        lender = plain[before.number - 1].truth["characters"][0]
        figure = next(x.figure for x in task.given.placed if x.figure.is_character)
        assert (figure.kind, figure.tint, figure.headwear) == tuple(lender[x] for x in LOOKS)


def test_exchanged_places_give_each_name_the_other_look() -> None:
    plain = story_tasks("picture pair", Split.VALIDATION, num=5, seed=3)
    num_apart = 0
    for before, task in zip(plain, exchange_places(plain), strict=True):
        assert before.given is not None and task.given is not None
        old = [x.figure for x in before.given.placed if x.figure.is_character]
        new = [x.figure for x in task.given.placed if x.figure.is_character]
        assert [x.kind for x in new] == [x.kind for x in reversed(old)]
        assert [x.x for x in task.given.placed] == [x.x for x in before.given.placed]
        assert task.page_texts == before.page_texts and "left" in task.page_texts[0]
        rates = measure_stories([replace(judged(task), other_truth=task.other_truth)])
        if "explanations" in rates:
            num_apart += 1
            assert rates["explanations"]["all, as asked"].value == 1.0
            assert rates["explanations"]["all, otherwise"].value == 0.0
    assert num_apart >= 2


def test_descriptions_say_every_carried_fact() -> None:
    num_facts = 0
    for name in ("words", "pair", "change"):
        for task in story_tasks(name, Split.VALIDATION, num=12, seed=3):
            told = described(task)
            assert told.is_alone and told.page_texts == task.page_texts
            for text, page in zip(told.read_texts, task.truth["pages"], strict=True):
                for subject, attribute, value, _ in page["carried"]:
                    if subject != "background" and value not in ("natural", "none"):
                        num_facts += 1
                        assert value in text, (text, subject, attribute, value)
    assert num_facts > 100
    first = story_tasks("words", Split.VALIDATION, num=1, seed=3)[0]
    assert described(first).read_texts[0] == first.page_texts[0]  # it says everything itself


def test_explanations_are_counted_where_they_differ() -> None:
    (task,) = control_tasks("names exchanged", Split.VALIDATION, num=7, seed=3)[-1:]
    mia = {"character": 0, "name": "Mia", "species": "fox", "tint": "red", "headwear": "none"}
    bo = mia | {"character": 1, "name": "Bo", "tint": "blue"}  # a fox, too
    facts = [["Mia", "species", "fox", 0], ["Bo", "species", "fox", 0]]

    def pages(*shown):
        return [
            {"background": "snow", "characters": list(x), "objects": [], "carried": facts}
            for x in shown
        ]

    task = replace(
        task,
        page_texts=("", "", ""),
        truth={"characters": [mia, bo], "pages": pages([mia], [mia], [mia, bo])},
        other_truth={"characters": [mia, bo], "pages": pages([bo], [bo], [bo, mia])},
    )
    seen = [Sighting("snow", [detection("fox", tint)]) for tint in ("red", "blue", "red")]
    told = replace(judged(task, sightings=seen), other_truth=task.other_truth)
    rates = measure_stories([told])["explanations"]
    assert {name: (rate.value, rate.total) for name, rate in rates.items()} == {
        "tint, as asked": (0.5, 2),
        "tint, otherwise": (0.5, 2),
        "all, as asked": (0.5, 2),
        "all, otherwise": (0.5, 2),
    }


def test_what_cannot_be_exchanged_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more"):
        control_tasks("names exchanged", Split.HELDOUT, num=1, seed=0)
    with pytest.raises(ValueError, match="hats"):
        control_tasks("hats", Split.HELDOUT, num=2, seed=0)
    words = story_tasks("words", Split.VALIDATION, num=2, seed=0)
    with pytest.raises(ValueError, match="given"):
        exchange_pictures(words)
    with pytest.raises(ValueError, match="two"):
        exchange_names(words)
    with pytest.raises(ValueError, match="two"):
        exchange_places(words)
