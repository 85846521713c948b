"""Truth atoms: the smallest statements about a picture that are simply true or false."""

from collections import Counter
from dataclasses import dataclass

from unimm.data.world.placement import relation_between
from unimm.data.world.scene import NATURAL, NO_HEADWEAR, Scene
from unimm.data.world.splits import canonical_relation

ATOM_KINDS: tuple[str, ...] = (
    "exists",
    "colour",
    "headwear",
    "count",
    "relation",
    "size",
    "style",
    "background",
)


@dataclass(frozen=True, order=True, slots=True)
class Atom:
    """One statement.

    Attributes:
        kind: one of ``ATOM_KINDS``.
        subject: the class it is about; empty for the background.
        value: the colour, headwear, number, relation, size, style or background; empty for
            ``exists``.
        other: the class a relation points to.
    """

    kind: str
    subject: str = ""
    value: str = ""
    other: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ATOM_KINDS:
            raise ValueError(f"unknown kind of atom {self.kind!r}; known: {ATOM_KINDS}")


def canonical_atom(atom: Atom) -> Atom:
    """An equal statement in its one form, so that 'right of' and 'left of' can be compared."""
    if atom.kind != "relation":
        return atom
    subject, value, other = canonical_relation(atom.subject, atom.value, atom.other)
    return Atom("relation", subject, value, other)


def scene_atoms(scene: Scene) -> set[Atom]:
    """Everything that may be said of a scene; a statement outside this set is false.

    Relations hold between classes: between some figure of one and some figure of the other.
    """
    atoms = {Atom("background", value=scene.background)}
    figures = [placed.figure for placed in scene.placed]
    for kind, number in Counter(figure.kind for figure in figures).items():
        atoms |= {Atom("exists", kind), Atom("count", kind, str(number))}
    for figure in figures:
        atoms |= {Atom("size", figure.kind, figure.size), Atom("style", figure.kind, figure.style)}
        if figure.tint != NATURAL:
            atoms.add(Atom("colour", figure.kind, figure.tint))
        if figure.headwear != NO_HEADWEAR:
            atoms.add(Atom("headwear", figure.kind, figure.headwear))
    for i, figure in enumerate(figures):
        for j, other in enumerate(figures):
            if i != j:
                atoms |= {
                    Atom("relation", figure.kind, relation, other.kind)
                    for relation in relation_between(scene, i, j)
                }
    return atoms


def atoms_to_json(atoms: set[Atom]) -> list[list[str]]:
    """Atoms as sorted rows of strings."""
    return [[atom.kind, atom.subject, atom.value, atom.other] for atom in sorted(atoms)]
