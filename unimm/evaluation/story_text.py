"""Text atoms: does a page's picture show what the page's own text says?

No truth is needed, so texts that a model wrote are judged too. The reader of captions is used, with
two things that only stories do: naming a place while going there, and looking at the stars.
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from unimm.data.world.atoms import Atom
from unimm.data.world.parse import parse_caption
from unimm.evaluation.stories import Count, JudgedStory
from unimm.judges.sightings import Sighting

_PLACES = {
    "meadow": "meadow",
    "desert": "desert",
    "snow": "snow|snowy",
    "beach": "beach|sea|seaside",
    "night": "night|dark|moon|stars",
    "dusk": "dusk|sunset|evening|sun (?:goes down|sets)",
}
_PLACE = {name: re.compile(rf"\b(?:{words})\b") for name, words in _PLACES.items()}
_NOT_NOW = re.compile(r"\bnight is over\b|\bafraid of the dark\b")
_SKY = re.compile(r"\bstars\b")  # of the night sky; the thing is always one star
_FIELDS = {"colour": "tint", "headwear": "headwear", "style": "style"}


@functools.lru_cache(maxsize=1 << 16)
def page_atoms(text: str) -> frozenset[Atom]:
    """What a page's text states about its picture; relations and sizes are left out.

    Args:
        text: any text; what is not understood states nothing.
    """
    lower = text.lower()
    atoms = parse_caption(_SKY.sub("", lower))
    atoms = {atom for atom in atoms if atom.kind not in ("background", "relation", "size")}
    now = _NOT_NOW.sub("", lower)
    return frozenset(atoms) | {
        Atom("background", value=place) for place, word in _PLACE.items() if word.search(now)
    }


def is_place_told(story: JudgedStory, page: int) -> bool:
    """Whether a reader of the story can know where a page is: by text, or by a given picture."""
    carried = [since for subject, *_, since in _facts(story, page) if subject == "background"]
    told = carried[0] if carried else page
    if told < story.first_page:
        return True
    return any(atom.kind == "background" for atom in page_atoms(story.page_texts[told]))


def _facts(story: JudgedStory, page: int) -> list[list[Any]]:
    return story.truth["pages"][page]["carried"]


def is_shown(atom: Atom, sighting: Sighting) -> bool:
    """Whether a picture shows what an atom says.

    Raises:
        ValueError: a relation: this judge does not know them.
    """
    if atom.kind == "background":
        return sighting.background == atom.value
    found = [x for x in sighting.detections if x.kind == atom.subject]
    if atom.kind == "exists":
        return bool(found)
    if atom.kind == "count":
        return len(found) == int(atom.value)
    if atom.kind not in _FIELDS:
        raise ValueError(f"atoms of kind {atom.kind!r} are not judged; leave them out")
    return any(getattr(x, _FIELDS[atom.kind]) == atom.value for x in found)


def count_text_atoms(story: JudgedStory) -> Iterator[Count]:
    """Every statement of every judged page, against the page's own picture.

    Yields:
        Group ``text atoms``: a row a kind of atom, ``all`` of them, and ``whole page`` (all of a
        page's statements hold).
    """
    for page in range(story.first_page, len(story.page_texts)):
        sighting = story.sightings[page]
        atoms = page_atoms(story.page_texts[page])
        right: Counter[str] = Counter()
        total = Counter(atom.kind for atom in atoms)
        if sighting is not None:
            right = Counter(atom.kind for atom in atoms if is_shown(atom, sighting))
        for kind, number in total.items():
            yield Count(group="text atoms", name=kind, right=right[kind], total=number)
        if atoms:
            num_right = right.total()
            yield Count(group="text atoms", name="all", right=num_right, total=len(atoms))
            yield Count(group="text atoms", name="whole page", right=num_right == len(atoms))
