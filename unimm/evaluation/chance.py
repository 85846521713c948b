"""Chance, exactly: how often two characters drawn apart look alike.

A later page that follows another story's introduction is right about the named character only by
such an accident. The distribution is enumerated, not sampled; a test holds it to the sampler.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeVar

from unimm.data.world import figures
from unimm.data.world.scene import CHARACTER_TINTS, HEADWEAR, NATURAL, NO_HEADWEAR, SPECIES
from unimm.data.world.splits import (
    HELDOUT_APPEARANCES,
    HELDOUT_PAIRS,
    Split,
    is_heldout_appearance,
)

T = TypeVar("T")
Look = tuple[str, str, str]
"""Species, tint, headwear."""

_PAIR_SHARE = 0.6  # of held-out characters: their pair is held out, not only their headwear on it


def look_distribution(split: Split) -> dict[Look, float]:
    """Probability of every look that ``sample_character`` draws; sums to 1."""
    bare, natural = figures._BARE_SHARE, figures._NATURAL_SHARE
    hats = {NO_HEADWEAR: bare} | {hat: (1 - bare) / len(HEADWEAR) for hat in HEADWEAR}
    if split == Split.HELDOUT:
        pairs = [pair for pair in HELDOUT_PAIRS if pair[0] in SPECIES]
        held: dict[Look, float] = defaultdict(float)
        for species, tint in pairs:
            for hat, share in hats.items():
                held[species, tint, hat] += _PAIR_SHARE * share / len(pairs)
        for look in HELDOUT_APPEARANCES:
            held[look] += (1 - _PAIR_SHARE) / len(HELDOUT_APPEARANCES)
        return dict(held)
    num_tints = len(CHARACTER_TINTS) - 1
    tints = {tint: (1 - natural) / num_tints for tint in CHARACTER_TINTS if tint != NATURAL}
    tints[NATURAL] = natural
    looks = {
        (species, tint, hat): tint_share * share
        for species in SPECIES
        for tint, tint_share in tints.items()
        for hat, share in hats.items()
        if not is_heldout_appearance(species, tint, hat)
    }
    total = sum(looks.values())
    return {look: share / total for look, share in looks.items()}


def chance_of_agreement(split: Split, *, drawn: Split | None = None) -> dict[str, float]:
    """How often two independent characters share their species, tint, headwear, and all of them.

    Args:
        split: whose looks are asked for.
        drawn: whose looks are drawn, if it is another: a model without context draws as it was
            trained (``Split.TRAIN``).
    """
    asked = look_distribution(split)
    shown = asked if drawn is None else look_distribution(drawn)
    chance = {}
    for place, name in enumerate(("species", "tint", "headwear")):
        chance[name] = _agreement(_marginal(asked, place), _marginal(shown, place))
    return chance | {"all": _agreement(asked, shown)}


def _marginal(looks: Mapping[Look, float], place: int) -> dict[str, float]:
    marginal: dict[str, float] = defaultdict(float)
    for look, share in looks.items():
        marginal[look[place]] += share
    return marginal


def _agreement(a: Mapping[T, float], b: Mapping[T, float]) -> float:
    return sum(share * b.get(word, 0.0) for word, share in a.items())
