"""The measures of stories on stories small enough to count by hand."""

from dataclasses import replace

import numpy as np
import pytest
from sightings import detection, judged

from unimm.data.world.atoms import Atom, scene_atoms
from unimm.data.world.scene import sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import sample_story
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_carried import count_carried, last_said, last_shown
from unimm.evaluation.story_consistency import count_consistency, count_copies, pixel_likeness
from unimm.evaluation.story_measures import count_pages, measure_stories
from unimm.evaluation.story_sets import story_tasks
from unimm.evaluation.story_text import count_text_atoms, is_shown, page_atoms
from unimm.judges.sightings import Sighting

MIA = {"name": "Mia", "species": "fox", "tint": "blue", "headwear": "crown"}
FOX = detection("fox", "blue", "crown")
LOOK = [["Mia", "species", "fox", 0], ["Mia", "tint", "blue", 0], ["Mia", "headwear", "crown", 0]]


def page(characters=(MIA,), objects=(), carried=(), background="snow"):
    return {
        "background": background,
        "characters": list(characters),
        "objects": list(objects),
        "carried": list(carried),
    }


def story(pages, sightings, texts=None, pictures=None, first_page=0) -> JudgedStory:
    pictures = pictures or [np.full((8, 8, 3), 30 * i, np.uint8) for i in range(len(pages))]
    return JudgedStory(
        number=0,
        truth={"characters": [MIA], "pages": pages},
        page_texts=tuple(texts or [""] * len(pages)),
        sightings=tuple(sightings),
        pictures=tuple(pictures),
        first_page=first_page,
    )


def shares(counts) -> dict[tuple[str, str], tuple[float, float]]:
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for x in counts:
        right, total = found.get((x.group, x.name), (0, 0))
        found[x.group, x.name] = (right + x.right, total + x.total)
    return found


def test_character_f1_counts_strangers_and_the_missing() -> None:
    stranger = detection("cat", "red")
    pages = [page(), page(carried=LOOK), page(carried=LOOK)]
    seen = [Sighting("snow", [FOX]), Sighting("snow", [FOX, stranger]), Sighting("snow", [])]
    texts = ["This is Mia.", "Mia is in the snow.", "She laughs."]
    found = shares(count_pages(story(pages, seen, texts)))
    # TP 2, FP 1, FN 1: F1 = 4 / 6
    assert found["pages", "character F1"] == (4, 6)
    assert found["pages", "frame"] == (1, 3)
    assert found["pages", "story"] == (0, 1)
    assert found["pages", "background"] == (1, 1)  # the others could be anywhere


def test_a_lost_hat_is_a_carried_fact_lost_at_its_distance() -> None:
    ball = {"kind": "ball", "tint": "red"}
    carried = [*LOOK, ["background", "background", "snow", 0]]
    pages = [
        page(objects=[ball]),
        page(carried=carried),
        page(objects=[ball], carried=[*carried, ["ball", "tint", "red", 0]]),
    ]
    bare = detection("fox", "blue", "none")
    seen = [
        Sighting("snow", [FOX, detection("ball", "red")]),
        Sighting("snow", [FOX]),
        Sighting("night", [bare, detection("ball", "red")]),
    ]
    texts = ["This is Mia in the snow.", "She laughs.", "She finds the ball."]
    found = shares(count_carried(story(pages, seen, texts)))
    assert found["carried since said", "headwear, 1 page"] == (1, 1)
    assert found["carried since said", "headwear, 2 pages"] == (0, 1)
    assert found["carried since said", "species, 2 pages"] == (1, 1)
    assert found["carried since said", "background, 2 pages"] == (0, 1)
    # the fox was shown on the page before, the ball two pages ago
    assert found["carried since shown", "headwear, 1 page"] == (1, 2)
    assert found["carried since shown", "thing, 2 pages"] == (1, 1)
    assert found["carried since said", "any, 2 pages"] == (3, 5)
    untold = shares(count_carried(story(pages, seen)))
    assert untold["carried since said", "any, 2 pages"] == (3, 4)  # nobody said where they are
    given = shares(count_carried(story(pages, seen, first_page=1)))
    assert given["carried since said", "background, 2 pages"] == (0, 1)  # but page 1 shows it


def test_a_fact_is_as_old_as_the_last_page_that_said_it() -> None:
    ball = {"kind": "ball", "tint": "red"}
    fact = ["ball", "tint", "red", 0]
    pages = [
        page(objects=[ball]),
        page(objects=[ball]),
        page(),
        page(objects=[ball], carried=[fact]),
    ]
    truth = {"characters": [MIA], "pages": pages}
    assert last_said(truth, 3, "ball", "tint", 0) == 1  # page 1 shows it and does not carry it
    assert last_shown(truth, 3, "ball", 0) == 1
    assert last_said(truth, 3, "Mia", "species", 0) == 2
    assert last_shown(truth, 3, "background", 0) == 2


def test_text_atoms_are_held_against_the_page_s_own_picture() -> None:
    pages = [page(), page(carried=LOOK)]
    texts = ["Mia, a blue fox with a crown, finds a red ball in the snow.", "She eats the apple."]
    seen = [Sighting("snow", [FOX, detection("ball", "green")]), None]
    found = shares(count_text_atoms(story(pages, seen, texts)))
    assert found["text atoms", "exists"] == (2, 3)
    assert found["text atoms", "colour"] == (1, 2)
    assert found["text atoms", "headwear"] == (1, 1)
    assert found["text atoms", "background"] == (1, 1)
    assert found["text atoms", "all"] == (5, 7)
    assert found["text atoms", "whole page"] == (0, 2)


def test_stories_are_read_without_a_false_statement() -> None:
    num_atoms = 0
    for split in Split:
        for index in range(150):
            sampled = sample_story(sample_rng(5, int(split), index), split, introduction="both")
            for told in sampled.pages:
                stated = page_atoms(told.text)
                num_atoms += len(stated)
                assert stated <= scene_atoms(told.scene), told.text
    assert num_atoms > 3000


def test_relations_are_not_judged() -> None:
    with pytest.raises(ValueError, match="relation"):
        is_shown(Atom("relation", "fox", "left of", "cat"), Sighting("snow", []))
    assert not is_shown(Atom("count", "fox", "2"), Sighting("snow", [FOX]))
    assert is_shown(Atom("style", "fox", "3d"), Sighting("snow", [FOX]))


def test_consistency_does_not_ask_for_truth() -> None:
    cat = detection("cat", "red")
    pages = [page(), page(carried=LOOK), page(carried=LOOK, background="night")]
    seen = [Sighting("dusk", [cat]), Sighting("dusk", [cat]), Sighting("dusk", [cat])]
    found = shares(count_consistency(story(pages, seen)))
    assert found["consistency", "looks"] == (2, 2)
    assert found["consistency", "background"] == (1, 1)  # page 3 is another place
    flat = replace(cat, style="flat", headwear="crown")
    found = shares(count_consistency(story(pages, [seen[0], Sighting("snow", [flat]), None])))
    assert found["consistency", "style"] == (0, 1)
    assert found["consistency", "looks"] == (0, 2)
    assert found["consistency", "background"] == (0, 1)


def test_a_look_that_the_story_changes_is_no_inconsistency() -> None:
    bare = MIA | {"headwear": "none"}
    pages = [page(), page(characters=[bare]), page(characters=[bare], carried=LOOK[:2])]
    plain = detection("fox", "blue", "none")
    seen = [Sighting("snow", [FOX]), Sighting("snow", [plain]), Sighting("snow", [plain])]
    assert shares(count_consistency(story(pages, seen)))["consistency", "looks"] == (1, 1)


def test_copies_are_near_equal_pictures_and_likeness_is_their_share_of_pixels() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(30, 200, (20, 20, 3)).astype(np.uint8)
    noisy = (first + rng.integers(-9, 9, first.shape)).astype(np.uint8)
    moved = np.roll(first, 5, axis=1)
    half = first.copy()
    half[:10] = 255
    assert pixel_likeness(first, noisy) == 1.0
    assert pixel_likeness(first, half) == 0.5
    pages = [page()] * 4
    told = story(pages, [None] * 4, pictures=[first, moved, noisy, half])
    found = shares(count_copies(told))
    assert found["copies", "copied pages"] == (1, 3)
    assert shares(count_copies(replace(told, pictures=(first, None, moved, None))))[
        "copies", "copied pages"
    ] == (0, 1)


def test_given_pages_are_compared_with_but_not_judged() -> None:
    task = story_tasks("picture", Split.VALIDATION, num=1, seed=2)[0]
    told = judged(task)
    tables = measure_stories([replace(told, pictures=(told.pictures[1], *told.pictures[1:]))])
    assert "introduction" not in tables
    assert tables["copies"]["copied pages"].value == pytest.approx(1 / 3)
    assert list(tables["by page"]) == ["page 2", "page 3", "page 4"]


def test_distances_stand_in_order() -> None:
    tasks = story_tasks("change", Split.VALIDATION, num=12, seed=2)
    names = list(measure_stories(judged(task) for task in tasks)["carried since said"])
    own = [name for name in names if name.startswith("headwear")]
    assert own == sorted(own, key=lambda name: int(name.split()[1]))
    assert "headwear, 5 pages" in own
