"""How a caption says groups of figures: each function returns a text and the atoms it states."""

from dataclasses import dataclass

import numpy as np

from unimm.data.world.atoms import Atom
from unimm.data.world.figures import pick
from unimm.data.world.scene import NATURAL, NO_HEADWEAR, Figure
from unimm.data.world.words import (
    NUMBER_WORDS,
    PLACE_PHRASES,
    PLURALS,
    RELATION_PHRASES,
    capitalise,
    indefinite,
    noun_phrase,
)

Relation = tuple[int, str, int]

_SHOP = (
    "{} sticker, free download",
    "buy {} online",
    "{} clipart png",
    "best price {}",
    "cute {} wallpaper hd",
    "{} icon set",
)
_UNRELATED = (
    "img_{}.jpg",
    "dsc{} copy",
    "image {} of 12",
    "untitled-{}",
    "my holiday {}",
    "click here to enlarge {}",
)


@dataclass(frozen=True)
class Group:
    """``number`` equal figures."""

    figure: Figure
    number: int = 1


def group_atoms(group: Group, *, says_style: bool = False) -> set[Atom]:
    """What naming a group in full states."""
    figure = group.figure
    atoms = {Atom("exists", figure.kind)}
    if group.number > 1:
        atoms.add(Atom("count", figure.kind, str(group.number)))
    if figure.tint != NATURAL:
        atoms.add(Atom("colour", figure.kind, figure.tint))
    if figure.headwear != NO_HEADWEAR:
        atoms.add(Atom("headwear", figure.kind, figure.headwear))
    if figure.size != "medium":
        atoms.add(Atom("size", figure.kind, figure.size))
    if says_style:
        atoms.add(Atom("style", figure.kind, figure.style))
    return atoms


def say_group(rng: np.random.Generator, group: Group, *, says_style: bool = False) -> str:
    """``two blue foxes with crowns`` in this world is ``two blue foxes with a crown each``."""
    figure = group.figure
    phrase = noun_phrase(figure, number=group.number, style=says_style)
    words = indefinite(phrase) if group.number == 1 else f"{NUMBER_WORDS[group.number]} {phrase}"
    if figure.headwear != NO_HEADWEAR:
        joint = "wearing" if rng.random() < 0.3 else "with"
        words = f"{words} {joint} {indefinite(figure.headwear)}"
        if group.number > 1:
            words += " each"
    return words


def _relation_atom(groups: tuple[Group, ...], relation: Relation) -> Atom:
    i, word, j = relation
    return Atom("relation", groups[i].figure.kind, word, groups[j].figure.kind)


def word_alt_text(rng: np.random.Generator, groups: tuple[Group, ...]) -> tuple[str, set[Atom]]:
    """Alt text as the web has it: 40 % a noun, 30 % a shop's noise, 30 % unrelated."""
    kind = groups[0].figure.kind
    roll = rng.random()
    if roll >= 0.7:
        return pick(rng, _UNRELATED).format(100 + int(rng.random() * 9900)), set()
    text = kind if roll < 0.4 else pick(rng, _SHOP).format(kind)
    return text, {Atom("exists", kind)}


def word_short(
    rng: np.random.Generator,
    groups: tuple[Group, ...],
    relation: Relation | None,
    background: str | None,
    *,
    says_style: bool,
) -> tuple[str, set[Atom]]:
    """One phrase: ``a red ball to the left of a cup on the beach``."""
    said = [say_group(rng, group, says_style=says_style) for group in groups]
    atoms = {atom for group in groups for atom in group_atoms(group, says_style=says_style)}
    if relation is None:
        phrase = " and ".join(said)
    else:
        i, word, j = relation
        phrase = f"{said[i]} {pick(rng, RELATION_PHRASES[word])} {said[j]}"
        atoms.add(_relation_atom(groups, relation))
    if background is not None:
        phrase = f"{phrase} {pick(rng, PLACE_PHRASES[background])}"
        atoms.add(Atom("background", value=background))
    roll = rng.random()
    if roll < 0.2:
        phrase = f"a picture of {phrase}"
    elif roll < 0.3:
        phrase = f"a photo of {phrase}"
    return (capitalise(phrase) + "." if rng.random() < 0.3 else phrase), atoms


def word_descriptive(
    rng: np.random.Generator,
    groups: tuple[Group, ...],
    relation: Relation | None,
    background: str,
    *,
    says_style: bool,
) -> tuple[str, set[Atom]]:
    """Sentences that say everything: who, where, and how they stand."""
    atoms = {atom for group in groups for atom in group_atoms(group, says_style=says_style)}
    atoms.add(Atom("background", value=background))
    splits_looks = rng.random() < 0.35 and not says_style
    shown = (
        [Group(Figure(kind=g.figure.kind), g.number) for g in groups] if splits_looks else groups
    )
    listed = " and ".join(say_group(rng, group, says_style=says_style) for group in shown)
    place = pick(rng, PLACE_PHRASES[background])
    verb = "is" if groups[0].number == 1 else "are"
    opening = (
        f"There {verb} {listed} {place}.",
        f"{capitalise(place)} there {verb} {listed}.",
        f"The picture shows {listed} {place}.",
        f"{capitalise(place)}, we see {listed}.",
        f"This is a picture of {listed} {place}.",
    )
    sentences = [pick(rng, opening)]
    details = [_say_look(group) for group in groups] if splits_looks else []
    if relation is not None:
        atoms.add(_relation_atom(groups, relation))
        i, word, j = relation
        kind, other = groups[i].figure.kind, groups[j].figure.kind
        phrase = pick(rng, RELATION_PHRASES[word])
        details.append(f"The {kind} is {phrase} the {other}.")
        if rng.random() < 0.5:
            details.reverse()
    sentences += [detail for detail in details if detail]
    return " ".join(sentences), atoms


def _say_look(group: Group) -> str:
    """``The small fox is blue and wears a crown.``; empty if there is nothing to say."""
    figure, is_one = group.figure, group.number == 1
    noun = figure.kind if is_one else PLURALS[figure.kind]
    looks = [word for word in (figure.size, figure.tint) if word not in ("medium", NATURAL)]
    said = f"{'is' if is_one else 'are'} {' and '.join(looks)}" if looks else ""
    if figure.headwear != NO_HEADWEAR:
        verb = "wears" if is_one else "each wear"
        worn = f"{verb} {indefinite(figure.headwear)}"
        said = f"{said} and {worn}" if said else worn
    return f"The {noun} {said}." if said else ""
