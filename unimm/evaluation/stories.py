"""Do the pictures of a story show whom its text names? Pure functions over truth and detections.

A character's look is said, or shown, once; later pages give its name only. So a later picture is
right only if the look was carried there. Everything here works on plain data: a story's truth as
``story_truth`` gives it, and what the detector saw on each page.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from unimm.evaluation.intervals import Rate, bootstrap_rate
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
        background: whether the background is right.
        objects: for each thing of the page, whether one of its kind, and in its tint, was found.
    """

    story: int
    page: int
    characters: tuple[CharacterScore, ...]
    has_right_number: bool
    background: bool
    objects: tuple[bool, ...]


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


def summarise(pages: Sequence[PageScore]) -> dict[str, dict[str, Rate]]:
    """Rates with intervals over stories.

    Returns:
        ``introduction``, ``alone`` and ``together`` (where there are such pages): species, tint,
        headwear, all; and ``pages``: frame (every character right and none too many), number of
        characters, background, objects.
    """
    rows: dict[str, dict[str, _Counts]] = defaultdict(lambda: defaultdict(_Counts))
    for page in pages:
        for character in page.characters:
            for name, is_right in character.right.items():
                rows[character.when][name].add(page.story, is_right)
        is_frame = page.has_right_number and all(x.right["all"] for x in page.characters)
        if page.characters:
            rows["pages"]["frame"].add(page.story, is_frame)
        rows["pages"]["number of characters"].add(page.story, page.has_right_number)
        rows["pages"]["background"].add(page.story, page.background)
        for is_right in page.objects:
            rows["pages"]["objects"].add(page.story, is_right)
    return {
        when: {name: counts.rate() for name, counts in scores.items()}
        for when, scores in rows.items()
    }


class _Counts:
    """Right and total per story."""

    def __init__(self) -> None:
        self.right: dict[int, int] = defaultdict(int)
        self.total: dict[int, int] = defaultdict(int)

    def add(self, story: int, is_right: bool) -> None:
        self.right[story] += is_right
        self.total[story] += 1

    def rate(self) -> Rate:
        return bootstrap_rate([self.right[s] for s in self.total], list(self.total.values()))


def by_distance(pages: Sequence[PageScore]) -> dict[str, Rate]:
    """All-right rate of later characters by page number (from 1), to see it decay or not."""
    counts: dict[int, _Counts] = defaultdict(_Counts)
    for page in pages:
        for character in page.characters:
            if character.when != "introduction":
                counts[page.page + 1].add(page.story, character.right["all"])
    return {f"page {number}": counts[number].rate() for number in sorted(counts)}


def with_look_of(truth: Truth, other: Truth) -> dict[str, Any]:
    """The truth of a story of one character, had it the look of another story's character."""
    if len(truth["characters"]) != 1 or len(other["characters"]) != 1:
        raise ValueError("only stories of one character can lend each other a look")
    look = {name: other["characters"][0][name] for name in LOOKS}
    pages = [
        {**page, "characters": [{**character, **look} for character in page["characters"]]}
        for page in truth["pages"]
    ]
    return {**truth, "pages": pages}
