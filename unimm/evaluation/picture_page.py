"""The report of a run as one self-contained HTML page: scores, then pictures, failures first."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from unimm.evaluation.picture_references import (
    CEILING,
    CEILING_AFTER,
    NEAREST,
    RANDOM,
    REFERENCES,
)
from unimm.evaluation.picture_results import Result
from unimm.evaluation.picture_summary import MEAN
from unimm.evaluation.report_parts import embed, html_document, plain_table, say_facts

_SPLIT_WORDS = {"seen": "seen combinations", "heldout": "held-out combinations"}

Pictures = Mapping[str, Image.Image]
"""Id of a request -> a picture."""


def picture_page(
    summary: Mapping[str, Any],
    results: Sequence[Result],
    *,
    truth: Pictures,
    nearest: Pictures,
    max_cards: int = 12,
) -> str:
    """Lay a run out for people.

    Args:
        summary: see ``summarise_pictures``.
        results: all judged pictures.
        truth: what each request asks for, drawn.
        nearest: the training picture that fits each request best.
        max_cards: pictures shown of each task and split; failures come first.

    Returns:
        HTML that needs no other file.
    """
    facts, splits = summary["facts"], summary["splits"]
    name = html.escape(str(facts.get("generator", {}).get("model", "samples")))
    heads = "".join(_head(split, rows[MEAN]) for split, rows in splits.items() if MEAN in rows)
    galleries = "\n".join(
        _gallery(split, tag, row, results, truth, nearest, max_cards)
        for split, rows in splits.items()
        for tag, row in rows.items()
        if tag != MEAN
    )
    body = f"""
<header><h1>WorldEval: {name}</h1><p>{_failures(summary, results)}</p></header>
<section class="sheet heads">{heads}</section>
<h2>Tasks</h2>
<section class="sheet">{_table(splits)}{_KEY}</section>
{_distribution(summary.get("distribution", {}))}
{galleries}
<footer>Bars show the score with its 95 % interval over prompts.{say_facts(facts)}</footer>
"""
    return html_document(f"WorldEval: {name}", body)


_KEY = (
    '<p class="key">Marks:<i style="background:var(--ink)"></i>ceiling: true renders, judged'
    '<i style="background:var(--gold)"></i>ceiling after the tokenizer'
    '<i style="background:var(--accent)"></i>random image: pictures of other prompts'
    '<i style="background:#6a7fa8"></i>nearest neighbour: a training picture looked up</p>'
)


def _failures(summary: Mapping[str, Any], results: Sequence[Result]) -> str:
    number = summary["failed"]
    said = f"{len(results):,} pictures of {len({x.request.id for x in results}):,} prompts; "
    if not number:
        return said + "all could be judged"
    return said + f"<strong>{number:,} failed</strong> and count as wrong"


def _head(split: str, row: Mapping[str, Any]) -> str:
    score = row["score"]
    return (
        f'<div class="head"><span>{html.escape(_SPLIT_WORDS.get(split, split))}</span>'
        f"<b>{score['value']:.3f} <small>{score['low']:.3f} to {score['high']:.3f}</small></b>"
        f"{_bar(row)}</div>"
    )


def _bar(row: Mapping[str, Any]) -> str:
    """The score on a line from 0 to 1, its interval, and what it must be seen beside."""
    score = row["score"]
    parts = [
        f'<i class="fill" style="width:{score["value"]:.1%}"></i>',
        f'<i class="band" style="left:{score["low"]:.1%};right:{1 - score["high"]:.1%}"></i>',
    ]
    classes = {CEILING: "ceiling", CEILING_AFTER: "after", RANDOM: "random", NEAREST: "nearest"}
    for name, css in classes.items():
        if name in row:
            value = row[name]["value"]
            title = f"{name} {value:.3f}"
            parts.append(f'<i class="mark {css}" title="{title}" style="left:{value:.1%}"></i>')
    return f'<div class="bar">{"".join(parts)}</div>'


def _table(splits: Mapping[str, Mapping[str, Any]]) -> str:
    names = ("task", "split", "score", "", "nothing else", *REFERENCES, "prompts", "failed")
    lines = ["<tr>" + "".join(f"<th>{name}</th>" for name in names) + "</tr>"]
    tags = list(dict.fromkeys(tag for rows in splits.values() for tag in rows))
    for tag in sorted(tags, key=lambda tag: tag != MEAN):
        for split, rows in splits.items():
            if tag in rows:
                lines.append(_line(tag, split, rows[tag]))
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, split: str, row: Mapping[str, Any]) -> str:
    score = row["score"]
    said = f"{score['value']:.3f} [{score['low']:.2f}, {score['high']:.2f}]"
    cells = [html.escape(tag.replace("_", " ")), html.escape(split), said, _bar(row)]
    cells += [f"{row['nothing else']['value']:.3f}"]
    cells += [f"{row[name]['value']:.3f}" if name in row else "" for name in REFERENCES]
    cells += [str(row["prompts"])]
    bad = ' class="bad"' if row["failed"] else ""
    tds = "".join(f"<td>{cell}</td>" for cell in cells)
    kind = ' class="mean"' if tag == MEAN else ""
    return f"<tr{kind}>{tds}<td{bad}>{row['failed']}</td></tr>"


def _distribution(table: Mapping[str, Mapping[str, float]]) -> str:
    """How near the sets of pictures are to real ones; nothing where that was not measured."""
    if not table:
        return ""
    return (
        "<h2>Pictures as a set<small>distance to real ones; true renders give the floor</small>"
        f'</h2><section class="sheet">{plain_table(table)}</section>'
    )


def _gallery(
    split: str,
    tag: str,
    row: Mapping[str, Any],
    results: Sequence[Result],
    truth: Pictures,
    nearest: Pictures,
    max_cards: int,
) -> str:
    own = [x for x in results if (x.request.split, x.request.tag) == (split, tag)]
    own.sort(key=lambda x: (not x.verdict.problem, x.verdict.score))  # stable: failures first
    shown = own[:max_cards]
    cards = "".join(_card(x, truth, nearest) for x in shown)
    left = f", {len(own) - len(shown)} more not shown" if len(own) > len(shown) else ""
    title = f"{tag.replace('_', ' ')}, {_SPLIT_WORDS.get(split, split)}"
    return (
        f"<h2>{html.escape(title)}<small>{row['score']['value']:.3f}, failures first{left}</small>"
        f'</h2><section class="sheet cards">{cards}</section>'
    )


def _card(result: Result, truth: Pictures, nearest: Pictures) -> str:
    verdict, request = result.verdict, result.request
    if result.sample.picture is None:
        art = f'<div class="none">{html.escape(verdict.problem)}</div>'
    else:
        art = embed(result.sample.picture, request.prompt)
    said = verdict.reason or verdict.problem
    why = f'<p class="why">{html.escape(said)}</p>' if said else '<p class="ok">right</p>'
    saw = f'<p class="saw">seen: {html.escape(verdict.seen)}</p>' if verdict.seen else ""
    thumbs = "".join(
        f"<figure>{embed(pictures[request.id], name)}<figcaption>{name}</figcaption></figure>"
        for name, pictures in (("asked", truth), ("nearest", nearest))
        if request.id in pictures
    )
    prompt = html.escape(request.prompt)
    return f'<div class="card">{art}<p>{prompt}</p>{why}{saw}<div class="pair">{thumbs}</div></div>'
