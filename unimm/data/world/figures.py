"""Draw looks at random under a split's rules."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from unimm.data.world.scene import (
    CHARACTER_TINTS,
    COLOURS,
    HEADWEAR,
    NATURAL,
    NO_HEADWEAR,
    OBJECTS,
    SPECIES,
    Figure,
)
from unimm.data.world.splits import (
    HELDOUT_APPEARANCES,
    HELDOUT_PAIRS,
    Split,
    is_heldout_appearance,
    is_heldout_pair,
)

Item = TypeVar("Item")

_SPECIES = tuple(SPECIES)
_OBJECTS = tuple(OBJECTS)
_HEADWEAR = tuple(HEADWEAR)
_NATURAL_SHARE = 0.25
_BARE_SHARE = 0.4
_CHARACTER_PAIRS = tuple(sorted(pair for pair in HELDOUT_PAIRS if pair[0] in SPECIES))
_OBJECT_PAIRS = tuple(sorted(pair for pair in HELDOUT_PAIRS if pair[0] in OBJECTS))
_APPEARANCES = tuple(sorted(HELDOUT_APPEARANCES))


def pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    """One of ``items``, uniformly; ten times faster than ``rng.choice``."""
    return items[int(rng.random() * len(items))]


def sample_headwear(rng: np.random.Generator) -> str:
    """A headwear or none."""
    return NO_HEADWEAR if rng.random() < _BARE_SHARE else pick(rng, _HEADWEAR)


def sample_character(
    rng: np.random.Generator,
    split: Split,
    *,
    species: str | None = None,
    tint: str | None = None,
    style: str = "3d",
) -> Figure:
    """A character's look: seen in training, or, in the held-out split, certainly not.

    Args:
        rng: the sample's stream.
        split: whose rules hold.
        species: fix the species; a held-out look is then taken only where there is one.
        tint: fix the tint, likewise.
        style: the art.
    """
    if split == Split.HELDOUT:
        pairs = _matching(_CHARACTER_PAIRS, species, tint)
        looks = _matching(_APPEARANCES, species, tint)
        if pairs and (not looks or rng.random() < 0.6):
            kind, held_tint = pick(rng, pairs)
            return Figure(kind=kind, tint=held_tint, headwear=sample_headwear(rng), style=style)
        if looks:
            kind, held_tint, headwear = pick(rng, looks)
            return Figure(kind=kind, tint=held_tint, headwear=headwear, style=style)
    while True:
        kind = species or pick(rng, _SPECIES)
        natural = rng.random() < _NATURAL_SHARE
        look = tint or (NATURAL if natural else pick(rng, CHARACTER_TINTS[1:]))
        headwear = sample_headwear(rng)
        if not is_heldout_appearance(kind, look, headwear):
            return Figure(kind=kind, tint=look, headwear=headwear, style=style)
        if species and tint and is_heldout_pair(species, tint):
            raise ValueError(f"a {tint} {species} is held out; ask for another look")


def _matching(looks: tuple[tuple[str, ...], ...], species: str | None, tint: str | None) -> tuple:
    if species is None and tint is None:
        return looks
    return tuple(look for look in looks if species in (None, look[0]) and tint in (None, look[1]))


def sample_object(
    rng: np.random.Generator,
    split: Split,
    *,
    kinds: Sequence[str] = _OBJECTS,
    natural_share: float = _NATURAL_SHARE,
    heldout_share: float = 1.0,
    style: str = "3d",
    size: str = "medium",
) -> Figure:
    """A thing in a seen tint, or in the held-out split (``heldout_share`` of it) an unseen one.

    Args:
        rng: the sample's stream.
        split: whose rules hold.
        kinds: classes to choose from.
        natural_share: how many are not tinted.
        heldout_share: in the held-out split, how often the pair itself is held out.
        style: the art.
        size: the size word.
    """
    if split == Split.HELDOUT and rng.random() < heldout_share:
        pairs = _OBJECT_PAIRS
        if kinds is not _OBJECTS:
            pairs = tuple(pair for pair in pairs if pair[0] in kinds)
        if pairs:
            kind, tint = pick(rng, pairs)
            return Figure(kind=kind, tint=tint, style=style, size=size)
    for _ in range(100):
        kind = pick(rng, kinds)
        tint = NATURAL if rng.random() < natural_share else pick(rng, COLOURS)
        if not is_heldout_pair(kind, tint):
            return Figure(kind=kind, tint=tint, style=style, size=size)
    raise ValueError(f"no seen tint among natural share {natural_share} of {list(kinds)}")
