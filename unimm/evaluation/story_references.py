"""What scores of stories must be seen beside: ceilings, baselines, and a pipeline with an oracle.

- ``ceiling`` and ``ceiling after the tokenizer``: true renders, see ``picture_references``.
- ``random image``: every page's picture is another story's picture of the same page.
- ``nearest neighbour``: the training picture that shows most of what the page must show.
- ``no context``: the model draws every page alone, from its own text.
- ``described``: likewise, but its text is told all that the story knows.

Legend: M training pictures, C characters and T things that are compared at most.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np

from unimm.data.world.scene import (
    BACKGROUNDS,
    CHARACTER_TINTS,
    HEADWEAR,
    NO_HEADWEAR,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    Scene,
)
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, NEAREST, RANDOM
from unimm.evaluation.stories import JudgedStory
from unimm.evaluation.story_measures import Tables, measure_stories

NO_CONTEXT, DESCRIBED = "no context", "described"
REFERENCES: tuple[str, ...] = (CEILING, CEILING_AFTER, RANDOM, NEAREST)
"""Every set and control has these; sets have ``no context`` and ``described``, too."""

_SPECIES, _KINDS, _HATS = (*SPECIES,), (*OBJECTS,), (NO_HEADWEAR, *HEADWEAR)
_MAX_CHARACTERS, _MAX_THINGS = 2, 3
_ABSENT = -1


class NearestPages:
    """Training pictures that can be asked for by what a page must show.

    Whole looks are compared, bare heads and natural colours too. The truth itself does the
    asking, so no retrieval by text could do better.

    Args:
        scenes: M training pictures.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, scenes: Sequence[Scene]) -> None:
        if not scenes:
            raise ValueError("there are no scenes to look among; ask for more training documents")
        self.scenes = list(scenes)
        encoded = [_encode(scene) for scene in scenes]
        self._looks = np.stack([looks for looks, *_ in encoded])  # (M, C, 3)
        self._things = np.stack([things for _, things, _ in encoded])  # (M, T, 2)
        self._numbers = np.array([numbers for *_, numbers in encoded])  # (M, 2)
        self._places = np.array([BACKGROUNDS.index(scene.background) for scene in scenes])  # (M,)

    def nearest(self, scene: Scene) -> Scene:
        """The training picture that is most like a scene: its characters, then place and things."""
        looks, things, (num_characters, num_things) = _encode(scene)
        score = 6.0 * (self._numbers[:, 0] == num_characters)
        score += self._places == BACKGROUNDS.index(scene.background)
        orders = permutations(range(min(num_characters, _MAX_CHARACTERS)))
        score += np.max([self._likeness(looks, order) for order in orders], axis=0)
        for kind, tint in things[:num_things]:
            is_kind = self._things[..., 0] == kind  # (M, T)
            score += 0.5 * is_kind.any(1)
            score += 0.5 * (is_kind & (self._things[..., 1] == tint)).any(1)
        score -= 0.25 * np.abs(self._numbers[:, 1] - num_things)
        return self.scenes[int(score.argmax())]

    def _likeness(self, looks: np.ndarray, order: Sequence[int]) -> np.ndarray:
        """Attributes in common ``(M,)`` when character i is theirs number ``order[i]``."""
        total = np.zeros(len(self.scenes))
        for i, j in enumerate(order):
            is_equal = self._looks[:, j] == looks[i]  # (M, 3)
            total += is_equal.sum(1) + 3.0 * is_equal.all(1)
        return total


def _encode(scene: Scene) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Looks ``(C, 3)`` and things ``(T, 2)`` as numbers, padded, and how many there really are."""
    figures = [placed.figure for placed in scene.placed]
    characters = [x for x in figures if x.is_character]
    others = [x for x in figures if not x.is_character]
    looks = np.full((_MAX_CHARACTERS, 3), _ABSENT)
    for row, x in zip(looks, characters, strict=False):
        row[:] = (
            _SPECIES.index(x.kind),
            CHARACTER_TINTS.index(x.tint),
            _HATS.index(x.headwear),
        )
    things = np.full((_MAX_THINGS, 2), _ABSENT)
    for row, x in zip(things, others, strict=False):
        row[:] = _KINDS.index(x.kind), OBJECT_TINTS.index(x.tint)
    return looks, things, (len(characters), len(others))


def exchange_pages(stories: Sequence[JudgedStory], shift: int = 0) -> list[JudgedStory]:
    """Give every page the picture of the same page of another story.

    Pages of one story get theirs from different stories where there are enough, so that the
    agreement of pages with each other is chance, too.

    Args:
        stories: of one set.
        shift: another number, another assignment.

    Raises:
        ValueError: there is no other story.
    """
    num = len(stories)
    if num < 2:
        raise ValueError(f"{num} story has no other to take pictures from; score 2 or more")
    exchanged = []
    for i, story in enumerate(stories):
        donors = [
            stories[(i + 1 + (shift + page) % (num - 1)) % num]
            for page in range(len(story.page_texts))
        ]
        exchanged.append(
            replace(
                story,
                sightings=tuple(donor.sightings[page] for page, donor in enumerate(donors)),
                pictures=tuple(donor.pictures[page] for page, donor in enumerate(donors)),
            )
        )
    return exchanged


def random_image_tables(stories: Sequence[JudgedStory], *, num_exchanges: int = 4) -> Tables:
    """What all measures say of other stories' pictures, over several exchanges."""
    return measure_stories(
        story for number in range(num_exchanges) for story in exchange_pages(stories, 7 * number)
    )
