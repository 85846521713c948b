"""A story while it is told: who is who, what is where, and how a beat becomes a sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from unimm.data.world import prose
from unimm.data.world.backdrops import NUM_VARIANTS
from unimm.data.world.figures import pick
from unimm.data.world.scene import NATURAL, NO_HEADWEAR, Figure
from unimm.data.world.splits import Split
from unimm.data.world.words import (
    DESTINATIONS,
    PLACE_PHRASES,
    capitalise,
    indefinite,
    look_phrase,
    noun_phrase,
)

_PRONOUNS = {
    "she": {"he": "she", "him": "her", "his": "her", "himself": "herself"},
    "he": {"he": "he", "him": "him", "his": "his", "himself": "himself"},
}
_CARRYING = ("carries", "holds", "brings", "takes {the}", "let go", "picks it up", "picks up {obj}")
LOOKS: tuple[str, ...] = ("species", "tint", "headwear")


@dataclass
class Actor:
    """A character at the present page: its look, and the thing it has."""

    name: str
    pronoun: str
    figure: Figure
    since: dict[str, int] = field(default_factory=dict)
    thing: Figure | None = None
    thing_since: int = 0
    thing_seen: int = -1


@dataclass
class Telling:
    """The state of a story that events read and change."""

    rng: np.random.Generator
    split: Split
    introduction: str
    actors: list[Actor]
    num_pages: int
    background: str
    location: str
    home: str
    page: int = 0
    num_introduced: int = 1
    background_since: int = 0
    variants: dict[str, int] = field(default_factory=dict)
    plant_stage: int = 0
    told: list[str] = field(default_factory=list)

    @property
    def variant(self) -> int:
        """A place looks the same whenever a story comes back to it."""
        if self.background not in self.variants:
            self.variants[self.background] = int(self.rng.random() * NUM_VARIANTS)
        return self.variants[self.background]

    @property
    def is_last(self) -> bool:
        """Whether this page ends the story."""
        return self.page == self.num_pages - 1

    def move_to(self, background: str) -> None:
        """Change the background from this page on."""
        self.background = background
        self.background_since = self.page
        if background in DESTINATIONS:
            self.location = background


@dataclass(frozen=True, kw_only=True)
class ShownThing:
    """A thing on a page, and which of its attributes the page's text leaves out."""

    figure: Figure
    since: int
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What happens on one page, before it has a picture.

    Attributes:
        event: its name.
        text: the page's text.
        actors: which characters are shown, in the order of naming.
        things: which things are shown.
        said: (character, attribute) that the text says.
        says_background: whether the text says where it is.
        relations: what must hold between the figures, characters first.
        is_carried: whether the first character has the first thing at its side.
    """

    event: str
    text: str
    actors: tuple[int, ...]
    things: tuple[ShownThing, ...] = ()
    said: frozenset[tuple[int, str]] = frozenset()
    says_background: bool = False
    relations: tuple[tuple[int, str, int], ...] = ()
    is_carried: bool = False


def says_place(template: str) -> bool:
    """Whether a template says where it is."""
    return any(slot in template for slot in ("{place}", "{home}", "{Home}", "{dest}"))


def says_carrying(template: str) -> bool:
    """Whether a thing must be at the side of who acts."""
    return any(words in template for words in _CARRYING)


def choose_template(telling: Telling, templates: Sequence[str]) -> str:
    """One that fits (nobody lives at a time of day), if possible one not told yet."""
    num_tries = 0
    while True:
        template = pick(telling.rng, templates)
        num_tries += 1
        has_home = "{home}" in template or "{Home}" in template
        if has_home and telling.background not in DESTINATIONS:
            continue
        if template not in telling.told or num_tries > 6:
            telling.told.append(template)
            return template


def look_slots(actor: Actor, suffix: str = "") -> dict[str, str]:
    """Slots that say how a character looks."""
    figure = actor.figure
    joint = "in" if figure.headwear != NO_HEADWEAR and len(actor.name) % 2 else "with"
    return {
        f"look{suffix}": look_phrase(figure, joint=joint),
        f"noun{suffix}": noun_phrase(figure),
        f"bare{suffix}": indefinite(noun_phrase(figure)),
        f"hat{suffix}": indefinite(figure.headwear),
    }


def full_name(actor: Actor) -> str:
    """``Mia the blue fox``, or ``Mia, a blue fox with a crown,``."""
    if actor.figure.headwear == NO_HEADWEAR:
        return f"{actor.name} the {noun_phrase(actor.figure)}"
    return f"{actor.name}, {look_phrase(actor.figure)},"


def recap(telling: Telling, beat: Beat, share: float) -> Beat:
    """Say looks that the page leaves to memory in a sentence of their own, ``Mia is a blue fox``.

    Only where two characters are told of, so that a name has to be told from another. A model that
    learned such pages can write this sentence behind a text that it is given, and then draws what
    it has said.

    Args:
        telling: the story's state.
        beat: a later page, as it is told; its characters were introduced on earlier pages.
        share: how many of the pages end so.
    """
    left = [i for i in beat.actors if not any(who == i for who, _ in beat.said)]
    if len(telling.actors) < 2 or not left or telling.rng.random() >= share:
        return beat
    sentences, said = [beat.text], set(beat.said)
    for i in left:
        actor = telling.actors[i]
        sentences.append(f"{actor.name} is {look_phrase(actor.figure)}.")
        said |= {(i, look) for look in LOOKS}
        actor.since = dict.fromkeys(LOOKS, telling.page)
    return replace(beat, text=" ".join(sentences), said=frozenset(said))


def known_thing(telling: Telling, actor: Actor) -> tuple[str, ShownThing]:
    """How the text names a thing the story knows; its colour is mostly left to memory."""
    thing = actor.thing
    assert thing is not None
    says_tint = thing.tint != NATURAL and telling.rng.random() < 0.12
    words = f"the {thing.tint} {thing.kind}" if says_tint else f"the {thing.kind}"
    unsaid = () if says_tint else ("tint",)
    actor.thing_seen = telling.page
    return words, ShownThing(figure=thing, since=actor.thing_since, unsaid=unsaid)


def tell(
    telling: Telling,
    template: str,
    actor: Actor,
    slots: Mapping[str, str] | None = None,
    *,
    other: Actor | None = None,
    name: str | None = None,
    closers: Sequence[str] = prose.CLOSERS,
    opens: bool = True,
) -> str:
    """Fill a template, lead into it and round it off.

    Args:
        telling: the story's state.
        template: a sentence of ``prose``.
        actor: who acts.
        slots: what else the template needs.
        other: the other character.
        name: how the actor is called here, when not by name or pronoun.
        closers: sentences that may follow.
        opens: whether words like 'Soon' may lead in.
    """
    rng = telling.rng
    words = _PRONOUNS[actor.pronoun]
    may_pronoun = len(telling.actors) == 1 and telling.page > 0 and other is None
    if may_pronoun and rng.random() < 0.35:
        called, possessive = words["he"], words["his"]
    else:
        called, possessive = name or actor.name, f"{actor.name}'s"
    places = PLACE_PHRASES[telling.background]
    place = places[0] if rng.random() < 0.6 else pick(rng, places)
    filled = {
        **words,
        **(slots or {}),
        "He": capitalise(words["he"]),
        "His": capitalise(words["his"]),
        "A": called,
        "As": possessive,
        "B": other.name if other else "",
        "place": place,
        "home": place,
        "Home": capitalise(place),
    }
    text = template.format_map(filled)
    if opens and template.startswith("{A}") and rng.random() < 0.3:
        text = pick(rng, prose.OPENERS if telling.page else prose.FIRST_OPENERS) + text
    closing = _closing(telling, text, closers)
    return capitalise_sentences(f"{text} {closing.format_map(filled)}" if closing else text)


def _closing(telling: Telling, text: str, closers: Sequence[str]) -> str:
    """A second or third sentence: likelier after a short text and on the last page."""
    rng = telling.rng
    num_words = text.count(" ") + 1
    if telling.is_last and rng.random() < 0.6:
        return pick(rng, prose.ENDINGS)
    if num_words > 13 or rng.random() >= (0.8 if num_words < 7 else 0.3):
        return ""
    is_ambient = closers != ("",) and rng.random() < 0.2
    closing = pick(rng, prose.AMBIENCE[telling.background] if is_ambient else closers)
    if not closing or closing in telling.told:
        return ""
    telling.told.append(closing)
    return closing


def capitalise_sentences(text: str) -> str:
    """Upper-case the first letter of every sentence."""
    out = capitalise(text)
    for mark in (". ", "! ", "? "):
        if mark in out:
            out = mark.join(capitalise(part) for part in out.split(mark))
    return out
