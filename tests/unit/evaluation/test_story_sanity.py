"""Story measures on true renders: what must move moves, what must not stays."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene
from unimm.data.world.splits import Split
from unimm.evaluation.nearest_scenes import training_scenes
from unimm.evaluation.picture_judge import SightingJudge, detector_judge
from unimm.evaluation.story_judging import judge_stories, render_stories
from unimm.evaluation.story_measures import measure_stories
from unimm.evaluation.story_references import NearestPages, exchange_pages, random_image_tables
from unimm.evaluation.story_sets import StoryTask, story_tasks
from unimm.judges.corruptions import add_noise, blur

NUM = 8


@cache
def judge() -> SightingJudge:
    return detector_judge("unimm/assets/models/detector")


@cache
def tasks_of(name: str, split: Split = Split.VALIDATION) -> tuple[StoryTask, ...]:
    return tuple(story_tasks(name, split, num=NUM, seed=31))


def tell(tasks, scenes=None, view=None):
    scenes = scenes or [task.scenes for task in tasks]
    pictures = render_stories(scenes, Renderer(), size=128, view=view)
    return judge_stories(tasks, pictures, judge().look)


@cache
def golden(name: str):
    return tell(tasks_of(name))


def value(stories, group: str, name: str) -> float:
    return measure_stories(stories)[group][name].value


@pytest.mark.parametrize("name", ["words", "pair"])
def test_golden_pictures_reach_the_ceiling(name: str) -> None:
    stories = golden(name)
    for group, row in (
        ("alone", "all"),
        ("pages", "frame"),
        ("pages", "character F1"),
        ("text atoms", "all"),
        ("carried since said", "any, 2 pages"),
        ("consistency", "style"),
        ("consistency", "looks"),
    ):
        assert value(stories, group, row) >= 0.9, (group, row)
    assert value(stories, "copies", "copied pages") <= 0.05


def test_shuffled_pages_keep_the_character_and_lose_the_story() -> None:
    right = golden("words")
    order = (0, 2, 3, 1)
    shuffled = [
        replace(
            story,
            sightings=tuple(story.sightings[p] for p in order),
            pictures=tuple(story.pictures[p] for p in order),
        )
        for story in right
    ]
    assert value(shuffled, "alone", "all") == value(right, "alone", "all")
    for group, row in (("text atoms", "all"), ("pages", "objects"), ("pages", "background")):
        assert value(shuffled, group, row) < value(right, group, row) - 0.1, (group, row)


def test_a_story_that_repeats_page_one_is_exposed_by_its_copies() -> None:
    right = golden("words")
    repeated = [
        replace(
            story,
            sightings=(story.sightings[0],) * 4,
            pictures=(story.pictures[0],) * 4,
        )
        for story in right
    ]
    assert value(repeated, "alone", "all") >= 0.9  # identity alone would praise it
    assert value(repeated, "consistency", "looks") == 1.0
    assert value(repeated, "copies", "copied pages") == 1.0
    assert value(repeated, "text atoms", "whole page") < value(right, "text atoms", "whole page")


@pytest.mark.parametrize("corruption, levels", [("blur", (1, 4, 16)), ("noise", (0.3, 0.6, 1.0))])
def test_scores_fall_with_blur_and_with_noise(corruption: str, levels: tuple[float, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    tasks = tasks_of("words")[:5]
    scores = [value(golden("words")[:5], "alone", "all")]
    for level in levels:

        def view(pixels: Tensor, level: float = level) -> Tensor:
            if corruption == "noise":
                return add_noise(pixels, pixels.new_full((len(pixels),), level), generator)
            for _ in range(int(level)):  # the strongest blur, again and again
                pixels = blur(pixels, pixels.new_full((len(pixels),), 3.0), generator)
            return pixels

        scores.append(value(tell(tasks, view=view), "alone", "all"))
    assert scores == sorted(scores, reverse=True), scores
    assert scores[0] >= 0.9 and scores[-2] < scores[0] - 0.2 and scores[-1] <= 0.3, scores


def test_scores_fall_when_figures_are_left_out() -> None:
    tasks = tasks_of("words")

    def without(scene: Scene, *, is_character: bool) -> Scene:
        left = [x for x in scene.placed if x.figure.is_character != is_character]
        return replace(scene, placed=tuple(left))

    right = golden("words")
    no_one = tell(tasks, [[without(x, is_character=True) for x in t.scenes] for t in tasks])
    assert value(no_one, "alone", "all") == 0.0
    assert value(no_one, "pages", "character F1") <= 0.05
    no_thing = tell(tasks, [[without(x, is_character=False) for x in t.scenes] for t in tasks])
    assert value(no_thing, "alone", "all") >= value(right, "alone", "all") - 0.05
    assert value(no_thing, "pages", "objects") == 0.0
    assert value(no_thing, "text atoms", "exists") < value(right, "text atoms", "exists")


def test_a_change_of_style_is_seen() -> None:
    tasks = tasks_of("words")[:4]

    def flat(scene: Scene) -> Scene:
        placed = [replace(x, figure=replace(x.figure, style="flat")) for x in scene.placed]
        return replace(scene, placed=tuple(placed))

    scenes = [[*t.scenes[:2], *map(flat, t.scenes[2:])] for t in tasks]
    assert value(tell(tasks, scenes), "consistency", "style") < 0.6


def test_looking_up_training_pictures_solves_seen_looks_and_no_held_out_one() -> None:
    pool = NearestPages(training_scenes(1500, seed=0))
    shares = {}
    for split in (Split.VALIDATION, Split.HELDOUT):
        tasks = tasks_of("words", split)
        scenes = [[pool.nearest(scene) for scene in task.scenes] for task in tasks]
        shares[split] = value(tell(tasks, scenes), "alone", "all")
    assert shares[Split.VALIDATION] > 0.6 and shares[Split.HELDOUT] < 0.15, shares
    with pytest.raises(ValueError, match="no scenes"):
        NearestPages([])


def test_pictures_of_other_stories_are_chance_and_agree_with_nothing() -> None:
    right = golden("pair")
    tables = random_image_tables(right)
    assert tables["alone"]["all"].value < 0.2
    assert tables["consistency"]["looks"].value < 0.3
    for number, story in enumerate(exchange_pages(right)):
        for page, picture in enumerate(story.pictures):
            own = right[number].pictures[page]
            assert picture is not None and own is not None and not np.array_equal(picture, own)
    with pytest.raises(ValueError, match="2 or more"):
        exchange_pages(right[:1])
