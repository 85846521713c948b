"""Read a caption back into truth atoms, so that generated text is scored exactly.

The parser shares only the word tables with the generator. It reads any text: what it does not
understand states nothing.
"""

import functools
import re

from unimm.data.world.atoms import Atom
from unimm.data.world.scene import COLOURS, HEADWEAR, OBJECTS, SPECIES
from unimm.data.world.words import (
    NUMBER_WORDS,
    PLACE_PHRASES,
    PLURALS,
    RELATION_PHRASES,
    STYLE_WORDS,
)

_KIND_OF = {kind: kind for kind in (*SPECIES, *OBJECTS)} | {
    plural: kind for kind, plural in PLURALS.items()
}
_RELATION_OF = {phrase: word for word, phrases in RELATION_PHRASES.items() for phrase in phrases}
_PLACE_OF = {phrase: place for place, phrases in PLACE_PHRASES.items() for phrase in phrases}
_STYLE_OF = {word.lower(): style for style, word in STYLE_WORDS.items()}
_NUMBER_OF = {word: number for number, word in enumerate(NUMBER_WORDS) if number > 1}


def _either(words: object) -> str:
    """A pattern of any of these words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))  # type: ignore[call-overload]


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    """Patterns of places, of naming a thing, and of what is said after naming it."""
    place = re.compile(rf"\b({_either(_PLACE_OF)})\b")
    adjectives = _either((*COLOURS, *_STYLE_OF, "small", "large"))
    hat = rf"(?:a|an)\s+({_either(HEADWEAR)})"
    naming = re.compile(
        rf"\b(?:(an?|the|{_either(_NUMBER_OF)})\s+)?((?:(?:{adjectives})\s+)*)"
        rf"({_either(_KIND_OF)})\b(?:\s+(?:with|wearing|in)\s+{hat}\b)?"
    )
    saying = re.compile(
        rf"^\s*(?:(?:is|are)\s+((?:{adjectives})(?:\s+and\s+(?:{adjectives}))*)\b)?"
        rf"(?:\s*(?:and\s+)?(?:each\s+)?(?:wears?)\s+{hat}\b)?"
    )
    return place, naming, saying


def parse_caption(text: str) -> set[Atom]:
    """The statements a caption makes.

    Args:
        text: any text; the captions of this world are read without loss.

    Returns:
        Atoms: kinds that are named exist, numbers from two up are counts, adjectives are colours,
        sizes and styles; relations hold between two kinds named one after the other.
    """
    place_pattern, naming, saying = _patterns()
    text = text.lower()
    atoms = {Atom("background", value=_PLACE_OF[m[1]]) for m in place_pattern.finditer(text)}
    text = place_pattern.sub("", text)
    named = list(naming.finditer(text))
    for index, match in enumerate(named):
        kind = _KIND_OF[match[3]]
        atoms.add(Atom("exists", kind))
        if match[1] in _NUMBER_OF:
            atoms.add(Atom("count", kind, str(_NUMBER_OF[match[1]])))
        atoms |= _read_adjectives(kind, match[2].split())
        end = named[index + 1].start() if index + 1 < len(named) else len(text)
        after = text[match.end() : end].split(".")[0]
        said = saying.match(after)
        if said and said[1]:
            atoms |= _read_adjectives(kind, said[1].split())
        for hat in (match[4], said[2] if said else None):
            if hat and kind in SPECIES:
                atoms.add(Atom("headwear", kind, hat))
        relation = _RELATION_OF.get(re.sub(r"^(is|are)\s+", "", " ".join(after.split())))
        if relation and index + 1 < len(named):
            atoms.add(Atom("relation", kind, relation, _KIND_OF[named[index + 1][3]]))
    return atoms


def _read_adjectives(kind: str, words: list[str]) -> set[Atom]:
    atoms: set[Atom] = set()
    for word in words:
        if word in COLOURS:
            atoms.add(Atom("colour", kind, word))
        elif word in _STYLE_OF:
            atoms.add(Atom("style", kind, _STYLE_OF[word]))
        elif word in ("small", "large"):
            atoms.add(Atom("size", kind, word))
    return atoms
