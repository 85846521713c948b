"""GenEval's metadata and rules: do the objects that were found in a picture satisfy its prompt?

Schema and rules are those of the official code (Ghosh et al., 2023, "GenEval", ``evaluation/
evaluate_images.py``), its quirks kept: only the ``count`` surest objects of a class are looked at;
objects too many are punished by an ``exclude`` clause only; a picture has to clear a higher
threshold when it is about counting; position is not looked at once a colour was wrong; two
relations can hold at once. Colours belong to boxes: the official code asks CLIP for the colour of
each object's crop, here the judge reads every object's looks inside its box. A clause may also
state ``headwear`` and ``style``, which work like ``color``, and the relations ``in front
of`` and ``behind``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unimm.evaluation.boxes import BoxRelations, Found, intersection_over_union

COUNTING = "counting"  # the tag that the higher threshold is for
LOOKS: tuple[str, ...] = ("color", "headwear", "style")
_CLAUSE_KEYS = ("class", "count", *LOOKS, "position")


@dataclass(frozen=True, kw_only=True)
class Clause:
    """Something that a picture must show (``include``) or must not (``exclude``).

    Attributes:
        kind: the class; ``class`` in JSON.
        count: so many of it at least.
        looks: name of ``LOOKS`` -> word that each of them must have.
        position: a relation, and which earlier clause of ``include`` it points to.
    """

    kind: str
    count: int
    looks: Mapping[str, str] = field(default_factory=dict)
    position: tuple[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """As in GenEval's files."""
        entry: dict[str, Any] = {"class": self.kind, "count": self.count, **self.looks}
        return entry if self.position is None else entry | {"position": list(self.position)}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Clause":
        """Read one; a key that no rule knows is an error, since it would silently be no demand."""
        unknown = sorted(set(entry) - set(_CLAUSE_KEYS))
        if unknown or "class" not in entry:
            raise ValueError(f"clause {dict(entry)}: unknown keys {unknown}; known: {_CLAUSE_KEYS}")
        count = entry.get("count")
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"clause {dict(entry)}: count must be a whole number from 1")
        position = entry.get("position")
        return Clause(
            kind=entry["class"],
            count=count,
            looks={name: entry[name] for name in LOOKS if name in entry},
            position=None if position is None else (position[0], int(position[1])),
        )


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """What GenEval knows of a prompt.

    Attributes:
        tag: the task.
        prompt: the text.
        include: all must hold.
        exclude: none may hold.
    """

    tag: str
    prompt: str
    include: tuple[Clause, ...]
    exclude: tuple[Clause, ...] = ()

    def __post_init__(self) -> None:
        for number, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < number:
                raise ValueError(
                    f"prompt {self.prompt!r}: clause {number} stands {clause.position[0]!r} clause "
                    f"{clause.position[1]}, which must come before it"
                )

    def to_json(self) -> dict[str, Any]:
        """One line of GenEval's metadata file."""
        entry: dict[str, Any] = {
            "tag": self.tag,
            "include": [clause.to_json() for clause in self.include],
        }
        if self.exclude:
            entry["exclude"] = [clause.to_json() for clause in self.exclude]
        return entry | {"prompt": self.prompt}

    @staticmethod
    def from_json(entry: Mapping[str, Any]) -> "Metadata":
        """Read one; keys beside GenEval's four are left to others."""
        missing = [key for key in ("tag", "prompt", "include") if key not in entry]
        if missing:
            raise ValueError(f"metadata without {missing}: {str(dict(entry))[:200]}")
        return Metadata(
            tag=entry["tag"],
            prompt=entry["prompt"],
            include=tuple(Clause.from_json(x) for x in entry["include"]),
            exclude=tuple(Clause.from_json(x) for x in entry.get("exclude", ())),
        )


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The numbers of the official code, which are its defaults here.

    Attributes:
        threshold: an object must be surer than this.
        counting_threshold: the same where the tag is ``counting``.
        max_objects: of a class.
        max_overlap: two objects of a class that share as much are one; 1 leaves all in.
        relations: how positions are read from boxes.
    """

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    relations: BoxRelations = field(default_factory=BoxRelations)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The verdict.

    Attributes:
        correct: whether all clauses hold.
        reason: what does not, a line each; empty when all do.
        is_exact: correct, and nothing is there that was not asked for (GenEval does not ask this).
    """

    correct: bool
    reason: str
    is_exact: bool


def keep_found(
    found: Sequence[Found], tag: str, *, rules: Rules | None = None
) -> dict[str, list[Found]]:
    """The objects that count, the surest first, by class.

    Args:
        found: what a detector reports, in any order.
        tag: of the prompt: counting has a threshold of its own.
        rules: the official ones by default.
    """
    rules = rules or Rules()
    threshold = rules.counting_threshold if tag == COUNTING else rules.threshold
    kept: dict[str, list[Found]] = {}
    for kind in dict.fromkeys(x.kind for x in found):
        sure = [x for x in found if x.kind == kind and x.score > threshold]
        queue = sorted(sure, key=lambda x: -x.score)[: rules.max_objects]
        while queue:
            best = queue.pop(0)
            kept.setdefault(kind, []).append(best)
            if rules.max_overlap < 1:
                share = [intersection_over_union(best.box, x.box) for x in queue]
                queue = [x for x, y in zip(queue, share, strict=True) if y < rules.max_overlap]
    return kept


def evaluate(
    objects: Mapping[str, Sequence[Found]], metadata: Metadata, *, rules: Rules | None = None
) -> Outcome:
    """Check all clauses.

    Args:
        objects: see ``keep_found``.
        metadata: what the prompt demands.
        rules: the official ones by default.
    """
    rules = rules or Rules()
    reasons: list[str] = []
    groups: list[Sequence[Found] | None] = []
    for clause in metadata.include:
        found = objects.get(clause.kind, [])[: clause.count]
        wrong = _check_looks(clause, found)
        if not wrong and clause.position is not None:
            relation, target = clause.position
            wrong = _check_position(clause.kind, relation, found, groups[target], rules)
        groups.append(None if wrong else found)
        reasons += wrong
    for clause in metadata.exclude:
        number = len(objects.get(clause.kind, []))
        if number >= clause.count:
            reasons.append(f"expected {clause.kind}<{clause.count}, found {number}")
    number = sum(len(group) for group in objects.values())
    is_exact = number == sum(clause.count for clause in metadata.include)
    return Outcome(
        correct=not reasons, reason="\n".join(reasons), is_exact=not reasons and is_exact
    )


def _check_looks(clause: Clause, found: Sequence[Found]) -> list[str]:
    """Enough of the class, and each of the surest with the words that are asked for."""
    if len(found) < clause.count:
        return [f"expected {clause.kind}>={clause.count}, found {len(found)}"]
    wrong: list[str] = []
    for name, word in clause.looks.items():
        seen = [x.looks.get(name, "") for x in found]
        if seen.count(word) < clause.count:
            said = ", ".join(f"{seen.count(x)} {x or 'unknown'}" for x in dict.fromkeys(seen))
            wrong.append(
                f"expected {word} {clause.kind}>={clause.count}, found {seen.count(word)} {word}; "
                f"and {said}"
            )
    return wrong


def _check_position(
    kind: str, relation: str, found: Sequence[Found], target: Sequence[Found] | None, rules: Rules
) -> list[str]:
    """Each object must stand so to each of the target's; the first that does not is told."""
    if target is None:
        return [f"no target for {kind} to be {relation}"]
    for thing in found:
        for other in target:
            seen = rules.relations.between(thing.box, other.box)
            if relation not in seen:
                said = " and ".join(sorted(seen)) or "beside no side of"
                return [f"expected {kind} {relation} target, found {said} target"]
    return []
