"""Illustrated stories with exact truth: pages of text and scene whose characters stay themselves.

A story's later pages call a character by name or pronoun only. Its look is known from the page that
introduced it, so a later picture can be right only through the context.
"""

import numpy as np

from unimm.data.world.compose import compose
from unimm.data.world.events import next_beat
from unimm.data.world.figures import pick, sample_character
from unimm.data.world.names import pronoun_of, sample_name
from unimm.data.world.opening import introduce_second, open_story
from unimm.data.world.placement import CARRIED_BY
from unimm.data.world.records import (
    Character,
    Fact,
    Page,
    Shown,
    StoryRecord,
    page_truth,
    story_heldout_facts,
)
from unimm.data.world.scene import BACKGROUNDS, Figure
from unimm.data.world.splits import Split, is_heldout_relation
from unimm.data.world.telling import LOOKS, Actor, Beat, Telling, recap
from unimm.data.world.words import DESTINATIONS

__all__ = [
    "INTRODUCTIONS",
    "MAX_PAGES",
    "Character",
    "Fact",
    "Page",
    "Shown",
    "StoryRecord",
    "page_truth",
    "sample_story",
    "story_heldout_facts",
]

INTRODUCTIONS: tuple[str, ...] = ("words", "picture", "both")
MAX_PAGES = 32  # training's have up to six; longer ones try what a model remembers

_PICTURE_SHARE = 0.5
_WORDS_SHARE = 0.08
_CHANGE_SHARE = 0.25
_PAIR_SHARE = 0.5


def sample_story(
    rng: np.random.Generator,
    split: Split,
    *,
    num_pages: int | None = None,
    introduction: str | None = None,
    num_characters: int | None = None,
    has_change: bool | None = None,
    recapped: float = 0.0,
) -> StoryRecord:
    """A story of four to six pages, mostly four.

    Args:
        rng: the sample's stream.
        split: whose names, looks and things it uses; each character of a held-out story has a
            held-out name and, for the first at least, a held-out look.
        num_pages: from 2 to ``MAX_PAGES``.
        introduction: one of ``INTRODUCTIONS``; half are by picture when left out.
        num_characters: 1 or 2.
        has_change: whether a look changes on the way.
        recapped: of the pages with two characters that leave a look to memory, how many end with a
            sentence of it.

    Raises:
        ValueError: an argument out of its range.
    """
    if introduction is not None and introduction not in INTRODUCTIONS:
        raise ValueError(f"unknown introduction {introduction!r}; known: {INTRODUCTIONS}")
    if num_characters not in (None, 1, 2):
        raise ValueError(f"num_characters is {num_characters}; a story has 1 or 2")
    if num_pages is None:
        roll = rng.random()
        num_pages = 4 if roll < 0.72 else 5 if roll < 0.88 else 6
    if not 2 <= num_pages <= MAX_PAGES:
        raise ValueError(f"num_pages is {num_pages}; a story has 2 to {MAX_PAGES}")
    if introduction is None:
        roll = rng.random()
        introduction = "words" if roll < _WORDS_SHARE else "both"
        introduction = "picture" if roll >= 1 - _PICTURE_SHARE else introduction
    if num_characters is None:
        num_characters = 2 if rng.random() < _PAIR_SHARE else 1
    if has_change is None:
        has_change = bool(rng.random() < _CHANGE_SHARE)
    for _ in range(20):
        try:
            return _tell_story(
                rng,
                split,
                num_pages,
                introduction,
                num_characters,
                has_change,
                recapped,
            )
        except ValueError:  # a page's figures could not be placed: tell another story
            continue
    raise ValueError(f"no story of {num_pages} pages could be placed in 20 tries")


def _tell_story(
    rng: np.random.Generator,
    split: Split,
    num_pages: int,
    introduction: str,
    num_characters: int,
    has_change: bool,
    recapped: float,
) -> StoryRecord:
    figures = _cast(rng, split, num_characters)
    names = _names(rng, split, num_characters)
    actors = [
        Actor(name=name, pronoun=pronoun_of(name), figure=figure)
        for name, figure in zip(names, figures, strict=True)
    ]
    characters = tuple(
        Character(
            name=actor.name,
            pronoun=actor.pronoun,
            species=actor.figure.kind,
            tint=actor.figure.tint,
            headwear=actor.figure.headwear,
        )
        for actor in actors
    )
    background = "meadow" if rng.random() < 0.2 else pick(rng, BACKGROUNDS)
    location = background if background in DESTINATIONS else pick(rng, tuple(DESTINATIONS))
    telling = Telling(
        rng=rng,
        split=split,
        introduction=introduction,
        actors=actors,
        num_pages=num_pages,
        background=background,
        location=location,
        home=background,
    )
    change_page = -1
    if has_change:
        first = min(2, num_pages - 1)
        change_page = first + int(rng.random() * max(1, num_pages - 1 - first))
    pages = []
    for page in range(num_pages):
        telling.page = page
        if page == 0:
            beat = open_story(telling)
        elif telling.num_introduced < num_characters:
            beat = introduce_second(telling)
        else:
            beat = next_beat(telling, is_change=page == change_page)
            if recapped > 0:
                beat = recap(telling, beat, recapped)
        pages.append(_draw(telling, beat))
    story = tuple(pages)
    return StoryRecord(characters=characters, introduction=introduction, pages=story, split=split)


def _cast(rng: np.random.Generator, split: Split, num_characters: int) -> list[Figure]:
    """Looks that differ in species or tint; two characters often share one of them."""
    first = sample_character(rng, split)
    if num_characters == 1:
        return [first]
    for _ in range(50):
        roll = rng.random()
        species = first.kind if roll < 0.35 else None
        tint = first.tint if 0.35 <= roll < 0.7 else None
        rules = split if rng.random() < 0.5 else Split.TRAIN
        second = sample_character(rng, rules, species=species, tint=tint)
        if (second.kind, second.tint) != (first.kind, first.tint):
            return [first, second]
    raise ValueError(f"no second character beside {first}")


def _names(rng: np.random.Generator, split: Split, num_characters: int) -> list[str]:
    names = [sample_name(rng, split)]
    while len(names) < num_characters:
        name = sample_name(rng, split)
        if name[0] != names[0][0]:  # easier to tell apart
            names.append(name)
    return names


def _draw(telling: Telling, beat: Beat) -> Page:
    """Give a beat its scene, and note what its text leaves to memory."""
    actors = [telling.actors[i] for i in beat.actors]
    figures = [actor.figure for actor in actors] + [thing.figure for thing in beat.things]
    scene = compose(
        telling.rng,
        telling.split,
        figures,
        background=telling.background,
        variant=telling.variant,
        relations=[*beat.relations, *_carrying(telling, beat, figures)],
    )
    shown = tuple(
        Shown(character=i, name=telling.actors[i].name, placed=placed)
        for placed, i in enumerate(beat.actors)
    )
    return Page(
        event=beat.event,
        text=beat.text,
        scene=scene,
        shown=shown,
        carried=_carried(telling, beat),
    )


def _carrying(telling: Telling, beat: Beat, figures: list[Figure]) -> list[tuple[int, str, int]]:
    """Put a carried thing at its carrier's side, where training may show it there."""
    if not beat.is_carried:
        return []
    thing = len(beat.actors)
    is_held = is_heldout_relation(figures[thing].kind, "in front of", figures[0].kind)
    if is_held and telling.split != Split.HELDOUT:
        return []
    return [(thing, CARRIED_BY, 0)]


def _carried(telling: Telling, beat: Beat) -> tuple[Fact, ...]:
    facts = []
    for i in beat.actors:
        actor = telling.actors[i]
        figure = actor.figure
        values = (figure.kind, figure.tint, figure.headwear)
        for attribute, value in zip(LOOKS, values, strict=True):
            since = actor.since[attribute]
            if since < telling.page and (i, attribute) not in beat.said:
                fact = Fact(subject=actor.name, attribute=attribute, value=value, since=since)
                facts.append(fact)
    for thing in beat.things:
        for attribute in thing.unsaid:
            value = getattr(thing.figure, attribute)
            subject = thing.figure.kind
            facts.append(Fact(subject=subject, attribute=attribute, value=value, since=thing.since))
    if not beat.says_background and telling.background_since < telling.page:
        value, since = telling.background, telling.background_since
        facts.append(Fact(subject="background", attribute="background", value=value, since=since))
    return tuple(facts)
