"""What a sampled story is made of: pages with their pictures' truth and what they remember."""

from dataclasses import dataclass
from typing import Any

from unimm.data.world.compose import heldout_facts
from unimm.data.world.names import is_heldout_name
from unimm.data.world.scene import Scene
from unimm.data.world.splits import Split


@dataclass(frozen=True, kw_only=True)
class Character:
    """A character as it comes in."""

    name: str
    pronoun: str
    species: str
    tint: str
    headwear: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something a page shows, known from an earlier page, that its own text does not say.

    Attributes:
        subject: a character's name, a thing's kind, or ``background``.
        attribute: ``species``, ``tint``, ``headwear``, ``kind`` or ``background``.
        value: the attribute's value.
        since: the page (from 0) on which it was introduced or last changed.
    """

    subject: str
    attribute: str
    value: str
    since: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Character ``character`` of the story stands at ``scene.placed[placed]``."""

    character: int
    name: str
    placed: int


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page: what it says, what it shows, and what must be remembered for it."""

    event: str
    text: str
    scene: Scene
    shown: tuple[Shown, ...]
    carried: tuple[Fact, ...]


@dataclass(frozen=True, kw_only=True)
class StoryRecord:
    """A story with its truth.

    Attributes:
        characters: looks as introduced; later looks are in the pages' scenes.
        introduction: ``words`` (the text says the look, the first picture shows only a home or a
            thing), ``picture`` (the text says the name only) or ``both``.
        pages: the pages.
        split: whose combinations it shows.
    """

    characters: tuple[Character, ...]
    introduction: str
    pages: tuple[Page, ...]
    split: Split


def page_truth(page: Page) -> dict[str, Any]:
    """What a page's picture must show, for judges; plain data for JSON.

    Returns:
        ``background``; ``characters``, each with ``character`` (its number in the story), ``name``,
        ``species``, ``tint``, ``headwear`` and ``x`` (its middle, a fraction of the width);
        ``objects``, each with ``kind``, ``tint`` and ``x``.
    """
    placed = page.scene.placed
    characters = []
    for shown in page.shown:
        item = placed[shown.placed]
        characters.append(
            {
                "character": shown.character,
                "name": shown.name,
                "species": item.figure.kind,
                "tint": item.figure.tint,
                "headwear": item.figure.headwear,
                "x": item.x,
            }
        )
    objects = [
        {"kind": item.figure.kind, "tint": item.figure.tint, "x": item.x}
        for item in placed
        if not item.figure.is_character
    ]
    return {
        "background": page.scene.background,
        "characters": characters,
        "objects": objects,
    }


def story_heldout_facts(story: StoryRecord) -> set[str]:
    """All that a story shows and training must not, names included."""
    facts = {character.name for character in story.characters if is_heldout_name(character.name)}
    return facts.union(*(heldout_facts(page.scene) for page in story.pages))
