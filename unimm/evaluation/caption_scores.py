"""Captions against the truth of their pictures: what they say is parsed, and each atom is checked.

Precision is the share of a caption's atoms that are true of the picture; recall the share of what a
full description must say (things, numbers, colours, headwear, place) that it says; hallucination,
as CHAIR counts it (Rohrbach et al., 2018), the share of named things that are not there, and the
share of captions that name one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unimm.data.world.atoms import ATOM_KINDS, Atom, canonical_atom, scene_atoms
from unimm.data.world.parse import parse_caption
from unimm.data.world.scene import Scene
from unimm.evaluation.intervals import bootstrap_rate

# Relations, sizes and styles may be said; which of them a description picks is its own choice.
_MUST_SAY = ("exists", "count", "colour", "headwear", "background")


@dataclass(frozen=True, kw_only=True)
class CaptionScore:
    """One caption.

    Attributes:
        stated: kind of atom -> how many the caption states.
        true: the same, of those that are true.
        wanted: the same, of those that a full description says.
        said: the same, of those of ``wanted`` that it says.
        invented: things it names that are not there.
    """

    stated: Counter[str] = field(default_factory=Counter)
    true: Counter[str] = field(default_factory=Counter)
    wanted: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    invented: tuple[str, ...] = ()

    @property
    def is_silent(self) -> bool:
        """Whether it states nothing that the parser understands."""
        return not self.stated

    @property
    def is_right(self) -> bool:
        """Whether it says all it must, and nothing false."""
        return self.stated == self.true and self.wanted == self.said


def score_caption(caption: str, scene: Scene) -> CaptionScore:
    """Check a caption.

    Args:
        caption: any text; what the world's grammar does not know states nothing.
        scene: what the picture shows.
    """
    truth = {canonical_atom(atom) for atom in scene_atoms(scene)}
    stated = {canonical_atom(atom) for atom in parse_caption(caption)}
    wanted = full_description(scene)
    return CaptionScore(
        stated=_by_kind(stated),
        true=_by_kind(stated & truth),
        wanted=_by_kind(wanted),
        said=_by_kind(wanted & stated),
        invented=tuple(sorted(x.subject for x in stated - truth if x.kind == "exists")),
    )


def full_description(scene: Scene) -> set[Atom]:
    """What a full description must say: one of a kind needs no number."""
    return {
        atom
        for atom in scene_atoms(scene)
        if atom.kind in _MUST_SAY and not (atom.kind == "count" and atom.value == "1")
    }


def summarise_captions(scores: Sequence[CaptionScore]) -> dict[str, Any]:
    """Rates with 95 % intervals over captions.

    Returns:
        ``precision``, ``recall``, ``things invented`` (of all named), ``captions that invent``,
        ``all right``; None where there is nothing to rate (no caption names a thing); ``silent``,
        the number of captions that state nothing (they have no precision, and a recall of 0);
        ``kinds``: kind of atom -> precision and recall.

    Raises:
        ValueError: there are no captions.
    """
    if not scores:
        raise ValueError("there are no captions to score")
    ones = [1.0] * len(scores)
    rates = {
        "precision": (_sums(scores, "true"), _sums(scores, "stated")),
        "recall": (_sums(scores, "said"), _sums(scores, "wanted")),
        "things invented": (
            [float(len(score.invented)) for score in scores],
            [float(score.stated["exists"]) for score in scores],
        ),
        "captions that invent": ([float(bool(score.invented)) for score in scores], ones),
        "all right": ([float(score.is_right) for score in scores], ones),
    }
    table: dict[str, Any] = {
        name: bootstrap_rate(right, total).to_json() if any(total) else None
        for name, (right, total) in rates.items()
    }
    table["captions"] = len(scores)
    table["silent"] = sum(score.is_silent for score in scores)
    return table | {"kinds": _kinds(scores)}


def _kinds(scores: Sequence[CaptionScore]) -> dict[str, dict[str, float]]:
    table: dict[str, dict[str, float]] = {}
    for kind in ATOM_KINDS:
        row: dict[str, float] = {}
        for name, right, total in (("precision", "true", "stated"), ("recall", "said", "wanted")):
            number = sum(getattr(score, total)[kind] for score in scores)
            if number:
                hits = sum(getattr(score, right)[kind] for score in scores)
                row |= {name: round(hits / number, 4), f"{name} of": number}
        if row:
            table[kind] = row
    return table


def _sums(scores: Sequence[CaptionScore], name: str) -> list[float]:
    return [float(sum(getattr(score, name).values())) for score in scores]


def _by_kind(atoms: set[Atom]) -> Counter[str]:
    return Counter(atom.kind for atom in atoms)
