"""Stories that a model goes on writing: what must their pictures show? Their texts say it.

Page 1 is the world's and introduces one character; the model writes the rest. Its look must last,
but for hats and paint that the text tells of. Once the text brings in another character, nobody
knows for sure who a name is: from then on looks are not judged.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unimm.data.world.scene import CHARACTER_TINTS, HEADWEAR, NATURAL, NO_HEADWEAR, SPECIES
from unimm.evaluation.stories import LOOKS
from unimm.evaluation.story_carried import BACKGROUND
from unimm.evaluation.story_sets import StoryTask
from unimm.evaluation.story_text import page_atoms

UNKNOWN: tuple[str, ...] = ("pages",)
"""Groups of measures that a text of the model's own does not settle."""

_HAT = "|".join(sorted(map(re.escape, HEADWEAR), key=len, reverse=True))
_TINT = "|".join(tint for tint in CHARACTER_TINTS if tint != NATURAL)
_NEW_HAT = re.compile(rf"\ban? ({_HAT})\b")
_ANY_HAT = re.compile(rf"\b({_HAT})\b")
_SPECIES = "|".join(sorted(map(re.escape, SPECIES), key=len, reverse=True))
_LOOK = rf",? (?:the|an?) (?:(?:{_TINT}) )?(?:{_SPECIES})\b(?: (?:with|in) an? (?:{_HAT})\b)?"
_NEW_TINT = re.compile(
    rf"\b(?:turns|now \w+ is(?: all)?|one wish later, \w+ is|paints (?:him|her)self) ({_TINT})\b"
)


def told_change(text: str) -> dict[str, str]:
    """What a page's text changes about its character's look: attribute -> the new word."""
    lower = text.lower()
    change: dict[str, str] = {}
    if tint := _NEW_TINT.search(lower):
        change["tint"] = tint[1]
    if hats := _NEW_HAT.findall(lower):
        change["headwear"] = hats[-1]
    elif _ANY_HAT.search(lower):
        change["headwear"] = NO_HEADWEAR
    return change


def without_restated(text: str, name: str) -> tuple[str, bool]:
    """A text without the look behind a name (``Mia, a blue fox with a crown,``), and was it there?

    A character's own look brings in nobody and changes nothing, right or wrong.
    """
    left, count = re.subn(
        rf"\b({re.escape(name)})(?: is)?{_LOOK}", r"\1", text, flags=re.IGNORECASE
    )
    return left, count > 0


def written_task(task: StoryTask, texts: Sequence[str]) -> StoryTask:
    """The story as the model wrote it, with the truth that its text makes.

    Args:
        task: the story whose page 1 was given; one character.
        texts: all pages, the first included.
    """
    return replace(task, page_texts=tuple(texts), truth=_read_truth(task, texts))


def _read_truth(task: StoryTask, texts: Sequence[str]) -> dict[str, Any]:
    (character,) = task.truth["characters"]
    look = {name: character[name] for name in LOOKS}
    since = dict.fromkeys(LOOKS, 0)
    place, place_since = _place_of(texts[0]), 0
    is_alone = True
    pages: list[dict[str, Any]] = []
    for number, text in enumerate(texts):
        carried: list[list[Any]] = []
        told = LOOKS
        if number:
            text, is_restated = without_restated(text, character["name"])
            change = told_change(text)
            look |= change
            told = LOOKS if is_restated else tuple(change)
            since |= dict.fromkeys(told, number)
            is_alone = is_alone and not _names_a_species(text)
            if said := _place_of(text):
                place, place_since = said, number
            elif place:
                carried.append([BACKGROUND, BACKGROUND, place, place_since])
        if is_alone:
            carried += [[character["name"], x, look[x], since[x]] for x in LOOKS if x not in told]
        shown = [{"character": 0, "name": character["name"], **look}] if is_alone else []
        pages.append({"background": place, "characters": shown, "objects": [], "carried": carried})
    return {**task.truth, "pages": pages}


def _place_of(text: str) -> str:
    """The place that a text says; empty if it says none, or more than one."""
    places = {atom.value for atom in page_atoms(text) if atom.kind == "background"}
    return places.pop() if len(places) == 1 else ""


def _names_a_species(text: str) -> bool:
    return any(atom.kind == "exists" and atom.subject in SPECIES for atom in page_atoms(text))
