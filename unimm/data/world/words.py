"""Words for the things of the world: nouns, plurals, articles, places, numbers."""

from unimm.data.world.scene import COLOURS, NATURAL, NO_HEADWEAR, OBJECTS, SPECIES, Figure

NUMBER_WORDS: tuple[str, ...] = ("no", "one", "two", "three", "four", "five", "six", "seven")

_IRREGULAR = {
    "mouse": "mice",
    "wolf": "wolves",
    "fox": "foxes",
    "fish": "fish",
    "bus": "buses",
    "cactus": "cacti",
    "snowman": "snowmen",
    "strawberry": "strawberries",
    "butterfly": "butterflies",
    "trophy": "trophies",
}
PLURALS: dict[str, str] = {kind: _IRREGULAR.get(kind, kind + "s") for kind in (*SPECIES, *OBJECTS)}

STYLE_WORDS: dict[str, str] = {"3d": "3D", "flat": "flat", "noto": "noto"}

# Each says its background and nothing else does: the parser reads them back.
PLACE_PHRASES: dict[str, tuple[str, ...]] = {
    "meadow": ("in the meadow", "in a green meadow", "in the grassy meadow"),
    "desert": ("in the desert", "in a hot desert", "in the sandy desert"),
    "snow": ("in the snow", "in the deep snow", "in the white snow"),
    "night": ("at night", "under the stars", "in the dark night"),
    "dusk": ("at dusk", "at sunset", "in the evening light"),
    "beach": ("on the beach", "by the sea", "at the seaside"),
}
# Where one can walk to; night and dusk are times, not places.
DESTINATIONS: dict[str, tuple[str, ...]] = {
    "meadow": ("the meadow", "the green meadow"),
    "desert": ("the desert", "the sandy desert"),
    "snow": ("the snow", "the snowy hills"),
    "beach": ("the beach", "the sea"),
}
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "in front of": ("in front of",),
    "behind": ("behind",),
}

assert set(COLOURS).isdisjoint(OBJECTS), "a colour word must not also be a thing"


def article(phrase: str) -> str:
    """The indefinite article of a phrase of this world: 'an' before a written vowel."""
    return "an" if phrase[0] in "aeiouAEIOU" else "a"


def indefinite(phrase: str) -> str:
    """``red ball`` -> ``a red ball``."""
    return f"{article(phrase)} {phrase}"


def noun_phrase(figure: Figure, *, number: int = 1, style: bool = False) -> str:
    """Adjectives and noun of a figure: ``small 3D red balls``; no headwear, no article."""
    words = []
    if figure.size != "medium":
        words.append(figure.size)
    if style:
        words.append(STYLE_WORDS[figure.style])
    if figure.tint != NATURAL:
        words.append(figure.tint)
    words.append(figure.kind if number == 1 else PLURALS[figure.kind])
    return " ".join(words)


def look_phrase(figure: Figure, *, joint: str = "with") -> str:
    """A figure with article and headwear: ``a blue fox with a crown``."""
    phrase = indefinite(noun_phrase(figure))
    if figure.headwear == NO_HEADWEAR:
        return phrase
    return f"{phrase} {joint} {indefinite(figure.headwear)}"


def capitalise(sentence: str) -> str:
    """Upper-case the first letter only."""
    return sentence[:1].upper() + sentence[1:]
