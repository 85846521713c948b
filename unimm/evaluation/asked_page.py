"""Reports of judges that are asked in words: tables, then pictures and what was said of them."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from unimm.evaluation.asked_summary import is_unanswered, task_name
from unimm.evaluation.asking_judge import Known
from unimm.evaluation.judged_pairs import PairResult
from unimm.evaluation.picture_folder import Sample
from unimm.evaluation.picture_results import Result
from unimm.evaluation.report_parts import embed, table_page
from unimm.judges.pairwise import FIRST, SECOND

_MAX_CARDS = 24
_WINNERS = {FIRST: "ours is better", SECOND: "theirs is better"}


def asked_page(summary: Mapping[str, Any], results: Sequence[Result], *, known: Known) -> str:
    """The report of a judged folder: what has no answer first, then where the truth differs.

    Args:
        summary: see ``summarise_asked``.
        results: of the generator's pictures.
        known: the truth, where there is any.
    """
    tables = {name: cells(row) for name, row in summary["tasks"].items()}
    sections = []
    for name in dict.fromkeys(map(task_name, results)):
        own = [x for x in results if task_name(x) == name]
        own.sort(key=lambda x: (not is_unanswered(x), not _differs(x, known), x.verdict.score))
        cards = "".join(_card(x, known) for x in own[:_MAX_CARDS])
        sections.append((_heading(name, len(own)), cards))
    facts = {**summary["facts"], "agreement": summary["agreement"]}
    title = f"{facts['protocol']}: {facts['samples']}"
    return table_page(title, tables, sections, facts)


def pairs_page(summary: Mapping[str, Any], results: Sequence[PairResult]) -> str:
    """The report of two folders: failures, contradictions and losses first.

    Args:
        summary: see ``summarise_pairs``.
        results: all pairs.
    """
    facts = summary["facts"]
    order = {None: 0, SECOND: 2, FIRST: 4}
    pairs = sorted(
        results,
        key=lambda x: 1 if x.verdict.is_contradiction else order.get(x.verdict.winner, 3),
    )
    cards = "".join(_pair_card(x) for x in pairs[:_MAX_CARDS])
    figures = {name: value for name, value in cells(summary).items() if name != "facts"}
    table = {name: {"": value} for name, value in figures.items()}
    title = f"pairwise: {facts['samples']} against {facts['against']}"
    heading = _heading("ours above, theirs below", len(pairs))
    return table_page(title, table, [(heading, cards)], facts)


def cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for people: rates with their interval, what is empty as a dash."""
    return {name: _cell(value) for name, value in row.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping) and "low" in value:
        return f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "-"
    return "-" if value is None else value


def _heading(name: str, number: int) -> str:
    return name if number <= _MAX_CARDS else f"{name} ({_MAX_CARDS} of {number})"


def _differs(result: Result, known: Known) -> bool:
    truth = known.get((result.request.id, result.sample.digest))
    is_judged = not result.verdict.problem
    return truth is not None and is_judged and truth.correct != result.verdict.correct


def _card(result: Result, known: Known) -> str:
    verdict = result.verdict
    said = verdict.problem or verdict.reason
    kind = "why" if said else "ok"
    lines = [_line("", result.request.prompt), _line(kind, said or "right")]
    if verdict.seen:
        lines.append(_line("saw", verdict.seen))
    if _differs(result, known):
        truth = "right" if known[result.request.id, result.sample.digest].correct else "wrong"
        lines.append(_line("why", f"the truth is known: {truth}"))
    return f'<div class="card">{_art(result.sample, result.request.prompt)}{"".join(lines)}</div>'


def _pair_card(result: PairResult) -> str:
    verdict = result.verdict
    if verdict.failure is not None:
        said = f"{verdict.failure.kind}: {verdict.failure.detail}"
    elif verdict.is_contradiction:
        said = "a tie: the answer changed with the order"
    else:
        said = _WINNERS.get(str(verdict.winner), "a tie")
    lines = [
        _line("", result.request.prompt),
        _line("ok" if verdict.winner == FIRST else "why", said),
        *(_line("saw", words) for words in (*result.said, result.note) if words),
    ]
    art = "".join(_art(x, result.request.prompt) for x in (result.ours, result.theirs))
    return f'<div class="card">{art}{"".join(lines)}</div>'


def _art(sample: Sample, prompt: str) -> str:
    if sample.picture is None:
        return f'<div class="none">{html.escape(sample.problem)}</div>'
    return embed(sample.picture, prompt)


def _line(kind: str, text: str) -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'
