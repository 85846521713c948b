"""The one split table: which combinations training never shows.

Every generator (captions, stories, edits, questions) asks this table, so a held-out combination
cannot slip in through a side door. Scores on seen combinations prove little: looking up the nearest
training scene solves them. All choices come from a stable hash, the same on every machine.
"""

import enum
import functools
import hashlib
from collections import Counter

from unimm.data.world.scene import (
    CHARACTER_TINTS,
    COLOURS,
    HEADWEAR,
    OBJECTS,
    SPECIES,
)

MAX_TRAIN_COUNT = 5
HELDOUT_COUNTS: tuple[int, ...] = (6, 7)

# Share of pairs, appearances and relations that training never shows.
HELDOUT_SHARE = 0.10


class Split(enum.IntEnum):
    """Where a sample belongs; its number is part of the sample's random key.

    ``VALIDATION`` has training's combinations under other seeds. ``HELDOUT`` samples each contain
    something that training never shows.
    """

    TRAIN = 0
    VALIDATION = 1
    HELDOUT = 2


def stable_hash(*words: str) -> int:
    """Hash words to 64 bits, equal on every machine and in every process."""
    digest = hashlib.blake2b("|".join(words).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def _hold_out_pairs(
    kinds: tuple[str, ...], tints: tuple[str, ...], *, num_per_kind: int, num_per_tint: int
) -> set[tuple[str, str]]:
    """Pick a tenth of all (kind, tint) in hash order, spread over kinds and tints.

    Natural looks are always seen: nothing else in the world could tell what they are.
    """
    pairs = [(kind, tint) for kind in kinds for tint in tints]
    pairs.sort(key=lambda pair: stable_hash("pair", *pair))
    num_held = round(HELDOUT_SHARE * len(pairs))
    by_kind: Counter[str] = Counter()
    by_tint: Counter[str] = Counter()
    held: set[tuple[str, str]] = set()
    for kind, tint in pairs:
        if len(held) == num_held:
            break
        if by_kind[kind] < num_per_kind and by_tint[tint] < num_per_tint:
            held.add((kind, tint))
            by_kind[kind] += 1
            by_tint[tint] += 1
    return held


def _build_pairs() -> frozenset[tuple[str, str]]:
    held: set[tuple[str, str]] = set()
    for kinds, colours, per_kind in (
        (tuple(SPECIES), CHARACTER_TINTS[1:], 1),
        (tuple(OBJECTS), COLOURS, 2),
    ):
        per_tint = round(HELDOUT_SHARE * len(kinds)) + 1
        held |= _hold_out_pairs(kinds, colours, num_per_kind=per_kind, num_per_tint=per_tint)
    return frozenset(held)


HELDOUT_PAIRS: frozenset[tuple[str, str]] = _build_pairs()

# Full looks whose (species, tint) is seen, only never under this headwear. Bare heads stay seen.
HELDOUT_APPEARANCES: frozenset[tuple[str, str, str]] = frozenset(
    (species, tint, headwear)
    for species in SPECIES
    for tint in CHARACTER_TINTS
    if (species, tint) not in HELDOUT_PAIRS
    for headwear in HEADWEAR
    if stable_hash("appearance", species, tint, headwear) % 10 == 0
)

_MIRRORED = {"right of": "left of", "behind": "in front of"}


def canonical_relation(kind: str, relation: str, other: str) -> tuple[str, str, str]:
    """Say a relation in its one form: 'cup right of ball' is 'ball left of cup'."""
    if relation in _MIRRORED:
        return other, _MIRRORED[relation], kind
    return kind, relation, other


@functools.cache
def is_heldout_relation(kind: str, relation: str, other: str) -> bool:
    """Whether training never shows ``kind`` in this relation to ``other``, however worded."""
    if kind == other:  # two of a kind always show both orders
        return False
    return stable_hash("relation", *canonical_relation(kind, relation, other)) % 10 == 0


def is_heldout_pair(kind: str, tint: str) -> bool:
    """Whether training never shows this class in this tint."""
    return (kind, tint) in HELDOUT_PAIRS


def is_heldout_appearance(species: str, tint: str, headwear: str) -> bool:
    """Whether training never shows this full look: its pair is held out, or its headwear on it."""
    return (species, tint) in HELDOUT_PAIRS or (species, tint, headwear) in HELDOUT_APPEARANCES
