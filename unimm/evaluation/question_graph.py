"""Questions about a picture that hang on each other, as in DPG-Bench and Davidsonian Scene Graphs.

A descriptive caption becomes yes/no questions: is there a fox, is it blue, is it left of the ball.
A question whose parent fails counts as failed, whatever was answered: nobody can see the colour of
a fox that is not there (Cho et al., 2024; Hu et al., 2024, "ELLA"). The official DPG code takes
category scores before that rule and from the last of four pictures only, and drops files that fail
to load; here every score is after the rule, and a picture that fails has all answers wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unimm.data.world.atoms import Atom
from unimm.data.world.words import (
    NUMBER_WORDS,
    PLACE_PHRASES,
    PLURALS,
    RELATION_PHRASES,
    STYLE_WORDS,
    indefinite,
)
from unimm.evaluation.boxes import BoxRelations, Found

CATEGORIES: tuple[str, ...] = ("entity", "attribute", "relation", "other", "global")
# No size: a picture does not show it (see ``judges.labels.VOCABULARY``).
_CATEGORY_OF = {
    "exists": "entity",
    "count": "other",
    "colour": "attribute",
    "headwear": "attribute",
    "style": "attribute",
    "relation": "relation",
    "background": "global",
}
_LOOK_OF = {"colour": "color", "headwear": "headwear", "style": "style"}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One yes/no question; yes is right.

    Attributes:
        number: from 1, unique in its graph, larger than its parents'.
        category: one of ``CATEGORIES``.
        text: as a person or a language model would be asked.
        atom: what it asks.
        count: so many of the subject must have what is asked.
        parents: numbers of the questions that must be answered yes first.
    """

    number: int
    category: str
    text: str
    atom: Atom
    count: int = 1
    parents: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        atom = self.atom
        return {
            "number": self.number,
            "category": self.category,
            "text": self.text,
            "atom": [atom.kind, atom.subject, atom.value, atom.other],
            "count": self.count,
            "parents": list(self.parents),
        }

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Question":
        """Read what ``to_json`` wrote."""
        changed = {"atom": Atom(*entry["atom"]), "parents": tuple(entry["parents"])}
        return Question(**(dict(entry) | changed))


def questions_of(atoms: Iterable[Atom]) -> tuple[Question, ...]:
    """The graph of a caption's atoms: first what exists, then what depends on it."""
    asked = sorted(atom for atom in atoms if atom.kind in _CATEGORY_OF)
    order = {kind: place for place, kind in enumerate(_CATEGORY_OF)}
    asked.sort(key=lambda atom: order[atom.kind])  # stable
    counts = {atom.subject: int(atom.value) for atom in asked if atom.kind == "count"}
    entities: dict[str, int] = {}
    questions: list[Question] = []
    for number, atom in enumerate(asked, 1):
        if atom.kind == "exists":
            entities[atom.subject] = number
        parents = () if atom.kind == "exists" else (atom.subject, atom.other)
        questions.append(
            Question(
                number=number,
                category=_CATEGORY_OF[atom.kind],
                text=_ask(atom, counts.get(atom.subject, 1)),
                atom=atom,
                count=counts.get(atom.subject, 1),
                parents=tuple(entities[kind] for kind in parents if kind in entities),
            )
        )
    return tuple(questions)


def _ask(atom: Atom, count: int) -> str:
    """Word a question."""
    subject = atom.subject if count == 1 else f"{NUMBER_WORDS[count]} {PLURALS[atom.subject]}"
    verb = "Is" if count == 1 else "Are"
    match atom.kind:
        case "exists":
            return f"Is there {indefinite(atom.subject)}?"
        case "count":
            return f"Are there exactly {subject}?"
        case "colour":
            return f"{verb} the {subject} {atom.value}?"
        case "headwear":
            worn = indefinite(atom.value)
            return f"{'Does' if count == 1 else 'Do'} the {subject} wear {worn}?"
        case "style":
            return f"{verb} the {subject} drawn in the {STYLE_WORDS[atom.value]} style?"
        case "relation":
            phrase = RELATION_PHRASES[atom.value][-1]
            return f"{verb} the {subject} {phrase} the {atom.other}?"
        case _:
            return f"Is this {PLACE_PHRASES[atom.value][0]}?"


def answer(
    question: Question,
    objects: Mapping[str, Sequence[Found]],
    background: str,
    *,
    relations: BoxRelations | None = None,
) -> bool:
    """Answer a question from what was found in a picture.

    Args:
        question: what is asked.
        objects: class -> what was found of it.
        background: what the background was taken for.
        relations: how positions are read from boxes.
    """
    atom = question.atom
    found = objects.get(atom.subject, [])
    if atom.kind == "exists":
        return bool(found)
    if atom.kind == "count":
        return len(found) == int(atom.value)
    if atom.kind == "background":
        return background == atom.value
    if atom.kind == "relation":
        rule = relations or BoxRelations()
        others = objects.get(atom.other, [])
        return any(atom.value in rule.between(a.box, b.box) for a in found for b in others)
    seen = [x.looks.get(_LOOK_OF[atom.kind]) for x in found]
    return seen.count(atom.value) >= question.count


def apply_dependencies(
    questions: Sequence[Question], answers: Mapping[int, bool]
) -> dict[int, bool]:
    """Answers after the rule: a child of a failed parent has failed.

    Args:
        questions: of one picture.
        answers: number -> answer; all must be there.

    Raises:
        ValueError: a question was not answered, or stands before its parent.
    """
    passed: dict[int, bool] = {}
    for question in questions:
        if question.number not in answers:
            raise ValueError(f"question {question.number} ({question.text!r}) has no answer")
        if any(parent not in passed for parent in question.parents):
            raise ValueError(f"question {question.number} stands before its parent; order them")
        parents = all(passed[parent] for parent in question.parents)
        passed[question.number] = answers[question.number] and parents
    return passed


def graph_score(questions: Sequence[Question], answers: Mapping[int, bool]) -> float:
    """Share of the questions that pass, see ``apply_dependencies``.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("a picture without questions has no score; make them with questions_of")
    passed = apply_dependencies(questions, answers)
    return sum(passed.values()) / len(passed)
