"""Stories changed so that only one explanation of a right picture is left.

- ``exchange_first_pages``: page 1 tells of another character: the named one's look is nowhere.
- ``exchange_names``: later pages name the other of two characters: pictures must follow the name.
- ``exchange_pictures``: the given picture shows another look: later pages must follow the picture.
- ``exchange_places``: two have changed places in the given picture, whose text says who is where.
- ``without_context``: every page is drawn alone from its own text: what a pipeline without memory
  does. Looks fall to chance.
- ``described``: every page is drawn alone, but its text is told all that the story knows, as a
  pipeline with an oracle's global description does (OpenLEAF): what memory could reach at best.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unimm.data.world.names import pronoun_of
from unimm.data.world.scene import NATURAL, Figure, Scene
from unimm.data.world.splits import Split
from unimm.data.world.words import PLACE_PHRASES, look_phrase
from unimm.evaluation.stories import LOOKS, Truth, with_look_of
from unimm.evaluation.story_sets import CONTROLS, StoryTask, story_tasks


def control_tasks(name: str, split: Split, *, num: int, seed: int) -> list[StoryTask]:
    """Sample a control: stories of its set with one thing changed.

    Args:
        name: one of ``CONTROLS``.
        split: validation or held-out.
        num: how many stories, 2 or more.
        seed: that of the set: pictures and first pages are exchanged in the same stories.

    Raises:
        ValueError: an unknown control, or too few stories to exchange anything.
    """
    if name not in CONTROLS:
        raise ValueError(f"unknown control {name!r}; known: {[*CONTROLS]}")
    if num < 2:
        raise ValueError(f"{num} story has no other to exchange with; ask for 2 or more")
    if name != "names exchanged":
        tasks = story_tasks(CONTROLS[name], split, num=num, seed=seed)
        exchanges = {
            "first pages exchanged": exchange_first_pages,
            "pictures exchanged": exchange_pictures,
            "places exchanged": exchange_places,
        }
        return exchanges[name](tasks)
    # Half of the pairs are one she and one he, whose pronouns would tell them apart.
    tasks = story_tasks("pair", split, num=4 * num + 16, seed=seed)
    return exchange_names([task for task in tasks if shares_pronoun(task.truth)][:num])


def exchange_first_pages(tasks: Sequence[StoryTask]) -> list[StoryTask]:
    """Give every story the first page of the one before it, and the first that of the last.

    The truth stays the named character's look; ``other_truth`` has the look that page 1 shows.
    """
    exchanged = []
    for number, task in enumerate(tasks):
        other = tasks[number - 1]
        pages = [other.truth["pages"][0], *task.truth["pages"][1:]]
        truth = {**task.truth, "pages": pages}
        exchanged.append(
            replace(
                task,
                page_texts=(other.page_texts[0], *task.page_texts[1:]),
                given=other.given,
                scenes=(other.scenes[0], *task.scenes[1:]),
                truth=truth,
                other="as shown on page 1",
                other_truth=with_look_of(truth, other.truth),
            )
        )
    return exchanged


def exchange_names(tasks: Sequence[StoryTask]) -> list[StoryTask]:
    """Let every page after the introductions name the other of the story's two characters.

    The truth follows the names; ``other_truth`` is the story's before the exchange.
    """
    return [_exchange_names(task) for task in tasks]


def _exchange_names(task: StoryTask) -> StoryTask:
    characters = task.truth["characters"]
    if len(characters) != 2:
        raise ValueError(
            f"story {task.number} has {len(characters)} characters; two exchange names"
        )
    first, second = (x["name"] for x in characters)
    partner = {first: second, second: first}
    start = _first_after_introductions(task.truth)
    names = re.compile(rf"\b({re.escape(first)}|{re.escape(second)})\b")
    texts = [names.sub(lambda found: partner[found[1]], text) for text in task.page_texts[start:]]
    pages = [_with_other_look(task.truth, page, partner) for page in task.truth["pages"][start:]]
    scenes = [
        _with_truth(scene, page) for scene, page in zip(task.scenes[start:], pages, strict=True)
    ]
    truth = {**task.truth, "pages": [*task.truth["pages"][:start], *pages]}
    return replace(
        task,
        page_texts=(*task.page_texts[:start], *texts),
        scenes=(*task.scenes[:start], *scenes),
        truth=truth,
        other="as before the exchange",
        other_truth=task.truth,
    )


def _first_after_introductions(truth: Truth) -> int:
    """The first page on which both characters are known."""
    known: set[str] = set()
    for number, page in enumerate(truth["pages"]):
        known |= {x["name"] for x in page["characters"]}
        if len(known) == 2:
            return number + 1
    return len(truth["pages"])


def _with_other_look(truth: Truth, page: Truth, partner: dict[str, str]) -> dict[str, Any]:
    """A page after the exchange: the other name in the same place, and so the other look."""
    looks = {x["name"]: x for x in truth["characters"]}
    introduced = {
        x["name"]: number
        for number, shown in reversed(list(enumerate(truth["pages"])))
        for x in shown["characters"]
    }
    characters = [
        x | {"name": partner[x["name"]]} | {n: looks[partner[x["name"]]][n] for n in LOOKS}
        for x in page["characters"]
    ]
    carried = []
    for subject, attribute, value, since in page["carried"]:
        if subject in partner:
            subject = partner[subject]
            value, since = looks[subject][attribute], introduced[subject]
        carried.append([subject, attribute, value, since])
    return {**page, "characters": characters, "carried": carried}


def _with_truth(scene: Scene, page: Truth) -> Scene:
    """A scene whose characters have the page's looks; they come in the same order."""
    looks = iter(page["characters"])
    placed = [
        replace(item, figure=_figure(next(looks), item.figure))
        if item.figure.is_character
        else item
        for item in scene.placed
    ]
    return replace(scene, placed=tuple(placed))


def _figure(look: Truth, like: Figure) -> Figure:
    return replace(like, kind=look["species"], tint=look["tint"], headwear=look["headwear"])


def exchange_pictures(tasks: Sequence[StoryTask]) -> list[StoryTask]:
    """Give every story's first picture the look of the one before it; place and things stay.

    The truth follows the picture; ``other_truth`` is the story's before the exchange.
    """
    exchanged = []
    for number, task in enumerate(tasks):
        if task.given is None:
            raise ValueError(f"story {task.number} has no given picture to exchange")
        truth = with_look_of(task.truth, tasks[number - 1].truth)
        exchanged.append(_shown_otherwise(task, truth))
    return exchanged


def exchange_places(tasks: Sequence[StoryTask]) -> list[StoryTask]:
    """Let the two characters of every given picture change places, so that names change looks.

    The truth follows the picture; ``other_truth`` is the story's before the exchange.
    """
    exchanged = []
    for task in tasks:
        if task.given is None or len(task.truth["characters"]) != 2:
            raise ValueError(f"story {task.number} has no given picture of two to exchange")
        first, second = task.truth["characters"]
        looks = {first["name"]: second, second["name"]: first}
        truth = {
            **task.truth,
            "characters": [_in_look(x, looks[x["name"]]) for x in (first, second)],
            "pages": [
                {
                    **page,
                    "characters": [_in_look(x, looks[x["name"]]) for x in page["characters"]],
                    "carried": [
                        [who, what, looks[who][what] if who in looks else value, since]
                        for who, what, value, since in page["carried"]
                    ],
                }
                for page in task.truth["pages"]
            ],
        }
        exchanged.append(_shown_otherwise(task, truth))
    return exchanged


def _in_look(character: Truth, other: Truth) -> dict[str, Any]:
    return {**character, **{name: other[name] for name in LOOKS}}


def _shown_otherwise(task: StoryTask, truth: Truth) -> StoryTask:
    """A task whose given picture, and so all of it, shows another truth."""
    scenes = tuple(
        _with_truth(scene, page) for scene, page in zip(task.scenes, truth["pages"], strict=True)
    )
    return replace(
        task,
        given=scenes[0],
        scenes=scenes,
        truth=dict(truth),
        other="as before the exchange",
        other_truth=task.truth,
    )


def without_context(task: StoryTask) -> StoryTask:
    """The same story, each page drawn from its own text alone."""
    return replace(task, is_alone=True)


def described(task: StoryTask) -> StoryTask:
    """The same story, each page drawn alone, but told what it would have to remember."""
    prompts = [
        _describe(page, text)
        for page, text in zip(task.truth["pages"], task.page_texts, strict=True)
    ]
    return replace(task, is_alone=True, prompts=tuple(prompts))


def _describe(page: Truth, text: str) -> str:
    """A page's text with its carried facts said first, in the story's own words."""
    carried = {(subject, attribute): value for subject, attribute, value, _ in page["carried"]}
    for kind in {x["kind"] for x in page["objects"]}:
        tint = carried.get((kind, "tint"), NATURAL)
        noun = kind if tint == NATURAL else f"{tint} {kind}"
        if (kind, "kind") in carried:
            text = re.sub(r"\bit\b", f"the {noun}", text, count=1)
        text = re.sub(rf"\bthe {kind}\b", f"the {noun}", text)
    known = [x for x in page["characters"] if (x["name"], "species") in carried]
    place = PLACE_PHRASES[page["background"]][0]
    needs_place = ("background", "background") in carried
    looks = [f"{x['name']} is {look_phrase(figure_of(x))}." for x in known]
    if needs_place and len(known) == 1:
        name, look = known[0]["name"], look_phrase(figure_of(known[0]))
        looks = [f"{name}, {look}, goes for a walk {place}."]
    elif needs_place:
        who = " and ".join(x["name"] for x in page["characters"])
        is_many = len(page["characters"]) > 1
        looks.append(f"{who} {'go' if is_many else 'goes'} for a walk {place}.")
    return " ".join([*looks, text])


def figure_of(x: Truth) -> Figure:
    """A character of a story's truth, as the world draws it."""
    return Figure(kind=x["species"], tint=x["tint"], headwear=x["headwear"])


def shares_pronoun(truth: Truth) -> bool:
    """Whether all characters are called by one pronoun, so that names can be exchanged alone."""
    return len({pronoun_of(x["name"]) for x in truth["characters"]}) == 1
