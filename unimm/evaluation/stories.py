"""Do the pictures of a story show whom its text names? Pure functions over truth and detections.

A character's look is said, or shown, once; later pages give its name only. So a later picture is
right only if the look was carried there. Everything here works on plain data: a story's truth as
``story_truth`` gives it, and what the detector saw on each page.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import permutations
from typing import Any

import numpy as np

from unimm.judges.sightings import Detection, Sighting

LOOKS: tuple[str, ...] = ("species", "tint", "headwear")
SCORES: tuple[str, ...] = (*LOOKS, "all")
_FIELD = {"species": "kind", "tint": "tint", "headwear": "headwear"}

Truth = Mapping[str, Any]
"""A story's truth: ``characters`` and ``pages`` (see ``unimm.data.world.tasks.story_truth``)."""


@dataclass(frozen=True, kw_only=True)
class CharacterScore:
    """One character that one page must show.

    Attributes:
        name: its name.
        when: ``introduction`` on the page that tells its look; later ``alone`` when it is the only
            character of its page, or ``together``.
        right: score -> whether the picture has it.
        seen: what the detector took for it: score -> word; empty if there was nothing.
    """

    name: str
    when: str
    right: dict[str, bool]
    seen: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class PageScore:
    """One page of one story.

    Attributes:
        story: number of the story; intervals are over these.
        page: from 0.
        characters: those that the page must show.
        has_right_number: as many characters were found as there should be.
        num_found: faces in the picture.
        num_matched: faces whose species and tint are a wanted character's; these two tell the
            characters of one story apart.
        background: whether the background is right.
        objects: for each thing of the page, whether one of its kind, and in its tint, was found.
    """

    story: int
    page: int
    characters: tuple[CharacterScore, ...]
    has_right_number: bool
    num_found: int
    num_matched: int
    background: bool
    objects: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class JudgedStory:
    """A story with its truth and what a judge saw of it: all that a measure may look at.

    Attributes:
        number: of the story; intervals are over these.
        truth: what the pages must show.
        page_texts: what the pages say.
        sightings: what the detector saw, page by page; None for a picture that was never drawn.
        pictures: the pages ``(H, W, 3)`` uint8, or None likewise.
        first_page: earlier pages were given, not drawn, and are not judged.
        other_truth: of a control, what the pages would show under another explanation.
    """

    number: int
    truth: Truth
    page_texts: tuple[str, ...]
    sightings: tuple[Sighting | None, ...]
    pictures: tuple[np.ndarray | None, ...] = field(repr=False)
    first_page: int = 0
    other_truth: Truth | None = None

    @cached_property
    def scores(self) -> list[PageScore]:
        """The judged pages."""
        return score_story(
            self.truth, self.sightings, story=self.number, first_page=self.first_page
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """What a measure says of one story, or of one thing in it: so much of so much is right.

    Attributes:
        group: which table it belongs to.
        name: which row of that table.
        right: how much is right.
        total: of how much.
    """

    group: str
    name: str
    right: float
    total: float = 1


def score_story(
    truth: Truth, sightings: Sequence[Sighting | None], *, story: int, first_page: int = 0
) -> list[PageScore]:
    """Judge the pages of a story.

    Args:
        truth: what the pages must show.
        sightings: what the detector saw, page by page; None for a picture that was never drawn,
            which is wrong in everything.
        story: its number.
        first_page: earlier pages were given, not drawn, and are not judged.

    Raises:
        ValueError: there are more or fewer sightings than pages.
    """
    pages = truth["pages"]
    if len(sightings) != len(pages):
        raise ValueError(
            f"story {story} has {len(pages)} pages but {len(sightings)} sightings; give None for "
            "pictures that failed"
        )
    return [
        _score_page(pages[page], sightings[page], story=story, page=page)
        for page in range(first_page, len(pages))
    ]


def _score_page(truth: Truth, sighting: Sighting | None, *, story: int, page: int) -> PageScore:
    detections = sighting.detections if sighting else []
    found = [x for x in detections if x.is_character]
    wanted = truth["characters"]
    partners = _assign(wanted, found)
    carried = {subject for subject, attribute, *_ in truth["carried"] if attribute == "species"}
    return PageScore(
        story=story,
        page=page,
        characters=tuple(
            _score_character(
                character,
                partner,
                when="introduction"
                if character["name"] not in carried
                else ("alone" if len(wanted) == 1 else "together"),
            )
            for character, partner in zip(wanted, partners, strict=True)
        ),
        has_right_number=len(found) == len(wanted),
        num_found=len(found),
        num_matched=_num_matched(wanted, found),
        background=sighting is not None and sighting.background == truth["background"],
        objects=_score_objects(truth["objects"], detections),
    )


def _assign(wanted: Sequence[Truth], found: Sequence[Detection]) -> list[Detection | None]:
    """Who is meant by whom: of the largest ``len(wanted)`` found, the kindest pairing.

    With one character there is one guess, so chance is not inflated; smaller extra figures are
    counted by ``has_right_number``.
    """
    largest: list[Detection | None] = list(sorted(found, key=lambda x: -x.area)[: len(wanted)])
    largest += [None] * (len(wanted) - len(largest))
    return list(
        max(
            permutations(largest),
            key=lambda order: sum(
                sum(_rights(a, b).values()) for a, b in zip(wanted, order, strict=True)
            ),
            default=(),
        )
    )


def _num_matched(wanted: Sequence[Truth], found: Sequence[Detection]) -> int:
    """Size of the largest pairing of equal species and tint."""
    left = Counter((x["species"], x["tint"]) for x in wanted)
    return (left & Counter((x.kind, x.tint) for x in found)).total()


def _rights(character: Truth, partner: Detection | None) -> dict[str, bool]:
    return {
        name: partner is not None and getattr(partner, _FIELD[name]) == character[name]
        for name in LOOKS
    }


def _score_character(character: Truth, partner: Detection | None, *, when: str) -> CharacterScore:
    rights = _rights(character, partner)
    return CharacterScore(
        name=character["name"],
        when=when,
        right=rights | {"all": all(rights.values())},
        seen={} if partner is None else {n: getattr(partner, _FIELD[n]) for n in LOOKS},
    )


def _score_objects(wanted: Sequence[Truth], found: Sequence[Detection]) -> tuple[bool, ...]:
    """Each thing of the truth takes one detection of its kind and tint."""
    left = [(x.kind, x.tint) for x in found if not x.is_character]
    rights = []
    for thing in wanted:
        key = (thing["kind"], thing["tint"])
        rights.append(key in left)
        if key in left:
            left.remove(key)
    return tuple(rights)


def with_look_of(truth: Truth, other: Truth) -> dict[str, Any]:
    """The truth of a story of one character, had it the look of another story's character."""
    if len(truth["characters"]) != 1 or len(other["characters"]) != 1:
        raise ValueError("only stories of one character can lend each other a look")
    look = {name: other["characters"][0][name] for name in LOOKS}
    (character,) = truth["characters"]
    pages = [
        {
            **page,
            "characters": [shown | look for shown in page["characters"]],
            "carried": [
                [subject, attribute, look[attribute], since]
                if subject == character["name"]
                else [subject, attribute, value, since]
                for subject, attribute, value, since in page["carried"]
            ],
        }
        for page in truth["pages"]
    ]
    return {**truth, "characters": [character | look], "pages": pages}
