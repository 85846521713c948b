"""The summary of a run over stories: every score beside its ceilings, baselines and controls.

Without ceilings and baselines there is no summary: a bare score says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unimm.data.world.splits import Split
from unimm.evaluation.chance import chance_of_agreement
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, RANDOM
from unimm.evaluation.stories import SCORES, JudgedStory
from unimm.evaluation.story_judging import num_failed
from unimm.evaluation.story_measures import Tables, measure_stories, to_json
from unimm.evaluation.story_references import DESCRIBED, NO_CONTEXT, REFERENCES
from unimm.evaluation.story_sets import CONTROLS, WRITTEN
from unimm.evaluation.story_written import UNKNOWN

WHENS: tuple[str, ...] = ("introduction", "alone", "together")
_ONE_LOOK = ("words", "picture", WRITTEN)


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """A set or control of a split, judged.

    Attributes:
        split: validation or held-out.
        name: of the set or control.
        stories: the model's pictures, judged.
        references: name -> what all measures say of other pictures, see ``story_references``.
        other: of a control, what its other truth is called.
    """

    split: Split
    name: str
    stories: Sequence[JudgedStory] = field(repr=False)
    references: Mapping[str, Tables] = field(repr=False)
    other: str = ""

    @property
    def key(self) -> str:
        """``heldout words``."""
        return f"{self.split.name.lower()} {self.name}"

    @property
    def needed(self) -> tuple[str, ...]:
        """The references without which the scores are not told."""
        if self.name == WRITTEN:
            return (CEILING, CEILING_AFTER, RANDOM)
        return REFERENCES if self.name in CONTROLS else (*REFERENCES, NO_CONTEXT, DESCRIBED)

    def measure(self) -> Tables:
        """All measures that its truth settles."""
        tables = measure_stories(self.stories)
        left_out = UNKNOWN if self.name == WRITTEN else ()
        return {group: rows for group, rows in tables.items() if group not in left_out}


def summarise_stories(results: Sequence[SetResult], *, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Make the summary.

    Args:
        results: all sets and controls.
        facts: what else the summary must say: requests, generator, judge, seeds.

    Returns:
        Plain data: ``facts``; ``failed``; tables for people, a row a score: ``headline``
        (identity), ``heldout`` (beside seen), ``context`` (with and without), ``controls``, and
        one for each other group of measures; ``sets``: everything, with all intervals.

    Raises:
        ValueError: a reference is missing.
    """
    for result in results:
        check_references(result)
    measured = {result.key: result.measure() for result in results}
    summary: dict[str, Any] = {
        "facts": dict(facts),
        "failed": sum(num_failed(result.stories) for result in results),
        "headline": {},
        "heldout": _heldout_rows(measured),
        "context": {},
        "controls": {},
    }
    for result in results:
        tables = measured[result.key]
        if result.name in CONTROLS:
            summary["controls"] |= _control_rows(result, tables)
        else:
            summary["headline"] |= _identity_rows(result, tables)
            summary["context"] |= _context_rows(result, tables)
        for group in tables:
            if group not in WHENS and result.name not in CONTROLS:
                rows = summary.setdefault(group.replace(" ", "_"), {})
                rows |= _group_rows(result, tables, group)
    summary["sets"] = {result.key: _all_of(result, measured[result.key]) for result in results}
    return summary


def check_references(result: SetResult) -> None:
    """Refuse scores that could not be told from chance.

    Raises:
        ValueError: a reference of the set is missing.
    """
    lacking = [name for name in result.needed if not result.references.get(name)]
    if lacking:
        raise ValueError(
            f"no summary of {result.key!r} without {' and '.join(lacking)}: a score means nothing "
            "alone; judge those pictures too (unimm.evaluation.story_references)"
        )


def chance_of(result: SetResult) -> dict[str, float]:
    """How often the look of one character is right if it is drawn as in training, exactly.

    Empty where a look changes on the way or two characters differ by design.
    """
    if result.name not in _ONE_LOOK:
        return {}
    chance = chance_of_agreement(result.split, drawn=Split.TRAIN)
    return {name: round(value, 4) for name, value in chance.items()}


def _identity_rows(result: SetResult, tables: Tables) -> dict[str, dict[str, Any]]:
    """Every score of identity with its interval; the references say the all-right one."""
    rows = {}
    for when in WHENS:
        if when not in tables:
            continue
        row: dict[str, Any] = {name: _told(tables[when][name]) for name in SCORES}
        row |= _references(result, when, "all")
        if when != "introduction" and (chance := chance_of(result)):
            row["chance"] = chance["all"]
        rate = tables[when]["all"]
        row |= {"stories": rate.units, "characters": rate.total}
        rows[f"{result.key} {when}"] = row | {"failed": num_failed(result.stories)}
    return rows


def _heldout_rows(measured: Mapping[str, Tables]) -> dict[str, dict[str, Any]]:
    """All-right looks that training has shown beside those that it never has, set by set."""
    seen, held = (f"{split.name.lower()} " for split in (Split.VALIDATION, Split.HELDOUT))
    rows: dict[str, dict[str, Any]] = {}
    for key, tables in measured.items():
        name = key.removeprefix(seen)
        if name == key or name in CONTROLS or held + name not in measured:
            continue
        for when in WHENS:
            if when in tables and when in (unseen := measured[held + name]):
                ours, theirs = tables[when]["all"], unseen[when]["all"]
                rows[f"{name} {when}"] = {
                    "seen looks": _told(ours),
                    "held-out looks": _told(theirs),
                    "lower by": round(ours.value - theirs.value, 3),
                }
    return rows


def _context_rows(result: SetResult, tables: Tables) -> dict[str, dict[str, Any]]:
    """Later looks with context, without, and described, attribute by attribute."""
    rows: dict[str, dict[str, Any]] = {}
    without = result.references.get(NO_CONTEXT, {})
    told = result.references.get(DESCRIBED, {})
    for name in SCORES:
        if not ("alone" in tables and "alone" in without and "alone" in told):
            continue
        row: dict[str, Any] = {
            "with context": _told(tables["alone"][name]),
            NO_CONTEXT: _told(without["alone"][name]),
            DESCRIBED: _told(told["alone"][name]),
        }
        if chance := chance_of(result):
            row["chance"] = chance[name]
        rows[f"{result.key} alone, {name}"] = row
    return rows


def _control_rows(result: SetResult, tables: Tables) -> dict[str, dict[str, Any]]:
    """A control's two explanations side by side: what is asked for, and the other one."""
    rows: dict[str, dict[str, Any]] = {}
    explanations = tables.get("explanations", {})
    for name in SCORES:
        if (asked := f"{name}, as asked") not in explanations:
            continue
        rate = explanations[asked]
        row: dict[str, Any] = {
            "as asked": _told(rate),
            "otherwise": _told(explanations[f"{name}, otherwise"]),
            "otherwise is": result.other,
        }
        row |= _references(result, "explanations", asked)
        row |= {"stories": rate.units, "judged": rate.total}
        rows[f"{result.key}, {name}"] = row | {"failed": num_failed(result.stories)}
    return rows


def _group_rows(result: SetResult, tables: Tables, group: str) -> dict[str, dict[str, Any]]:
    return {
        f"{result.key}, {name}": {"score": _told(rate)}
        | _references(result, group, name)
        | {"stories": rate.units, "judged": rate.total}
        for name, rate in tables[group].items()
    }


def _references(result: SetResult, group: str, name: str) -> dict[str, Any]:
    return {
        reference: round(tables[group][name].value, 3)
        for reference in result.needed
        if name in (tables := result.references[reference]).get(group, {})
    }


def _told(rate: Any) -> str:
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}]"


def _all_of(result: SetResult, tables: Tables) -> dict[str, Any]:
    everything = {
        "stories": len(result.stories),
        "failed pictures": num_failed(result.stories),
        "scores": to_json(tables),
        "chance": chance_of(result),
    }
    everything |= {name: to_json(result.references[name]) for name in result.needed}
    return everything
