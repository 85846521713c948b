"""The report of a run as one self-contained HTML page: scores, then pictures, failures first."""

import base64
import html
import io
import json
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

_SIDE = 192  # pixels: larger pictures are made smaller
_SPLIT_WORDS = {"seen": "seen combinations", "heldout": "held-out combinations"}

STYLE = """
:root { --paper: #fbf7ee; --desk: #ece4d4; --ink: #3a2e25; --faint: #8f7f6b; --line: #4a362020;
  --accent: #b5533c; --right: #4d7a4a; --gold: #c79a3a; }
* { box-sizing: border-box; margin: 0; }
body { background: var(--desk); color: var(--ink); padding: 4vmin 20px 50px; line-height: 1.45;
  font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", "URW Palladio L",
    Georgia, "DejaVu Serif", serif; }
main { max-width: 1120px; margin: 0 auto; }
header { text-align: center; padding: 3vmin 0 4vmin; }
h1 { font-size: clamp(1.8rem, 4vw, 2.8rem); font-weight: 600; letter-spacing: -.01em; }
header p { color: var(--faint); margin-top: .4rem; }
h2 { font-size: 1.35rem; font-weight: 600; margin: 2.6rem 0 .9rem; }
h2 small { color: var(--faint); font-weight: 400; font-size: .95rem; margin-left: .6rem; }
.sheet { background: var(--paper); border-radius: 6px; padding: 26px 30px; overflow-x: auto;
  box-shadow: 0 1px 2px #4a36201f, 0 12px 34px #4a36202b; }
.heads { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 22px; }
.head b { display: block; font-size: 3rem; font-weight: 600; line-height: 1.1; }
.head b small { font-size: 1.05rem; font-weight: 400; color: var(--faint); }
.head span { color: var(--faint); }
.bar { position: relative; height: 14px; min-width: 150px; border-radius: 7px;
  background: #4a362014; }
.bar i { position: absolute; top: 0; bottom: 0; border-radius: 7px; }
.bar .fill { left: 0; background: #4d7a4a59; }
.bar .band { background: var(--right); opacity: .55; }
.bar .mark { width: 2px; margin-left: -1px; top: -3px; bottom: -3px; border-radius: 1px; }
.mark.ceiling { background: var(--ink); } .mark.after { background: var(--gold); }
.mark.random { background: var(--accent); } .mark.nearest { background: #6a7fa8; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; font-size: .82rem; color: var(--faint); }
th, td { padding: 7px 12px 7px 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
tr.mean td { font-weight: 600; }
td.bad { color: var(--accent); font-weight: 600; }
.key { font-size: .85rem; color: var(--faint); margin-top: 14px; }
.key i { display: inline-block; width: 9px; height: 12px; margin: 0 5px 0 12px; border-radius: 2px;
  vertical-align: -1px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); gap: 18px; }
.card { font-size: .84rem; break-inside: avoid; }
.card img, .card .none { display: block; width: 100%; aspect-ratio: 1; border-radius: 4px; }
.card > img { box-shadow: 0 0 0 1px #4a362014, 0 3px 12px #4a362026; }
.card .none { display: grid; place-items: center; text-align: center; padding: 12px;
  background: repeating-linear-gradient(45deg, #b5533c14 0 8px, #b5533c26 8px 16px);
  color: var(--accent); overflow-wrap: anywhere; }
.card p { margin-top: 6px; overflow-wrap: anywhere; }
.card .why { color: var(--accent); white-space: pre-line; }
.card .ok { color: var(--right); }
.card .saw { color: var(--faint); }
.pair { display: flex; gap: 6px; margin-top: 6px; }
.pair figure { width: 56px; }
.pair img { border-radius: 3px; }
figcaption { font-size: .68rem; color: var(--faint); }
footer { margin-top: 40px; border-top: 1px solid var(--line); padding-top: 16px;
  color: var(--faint); font-size: .8rem; overflow-wrap: anywhere; }
footer pre { white-space: pre-wrap; font-size: .75rem; margin-top: 10px; }
@media print { body { background: none; } .sheet { box-shadow: none; } }
"""

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
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="unimm">
<title>WorldEval: {name}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<header><h1>WorldEval: {name}</h1><p>{_failures(summary, results)}</p></header>
<section class="sheet heads">{heads}</section>
<h2>Tasks</h2>
<section class="sheet">{_table(splits)}{_KEY}</section>
{galleries}
<footer>Bars show the score with its 95 % interval over prompts.
<pre>{html.escape(json.dumps(facts, indent=1, ensure_ascii=False))}</pre></footer>
</main>
</body>
</html>
"""


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
        art = _img(result.sample.picture, request.prompt)
    said = verdict.reason or verdict.problem
    why = f'<p class="why">{html.escape(said)}</p>' if said else '<p class="ok">right</p>'
    saw = f'<p class="saw">seen: {html.escape(verdict.seen)}</p>' if verdict.seen else ""
    thumbs = "".join(
        f"<figure>{_img(pictures[request.id], name)}<figcaption>{name}</figcaption></figure>"
        for name, pictures in (("asked", truth), ("nearest", nearest))
        if request.id in pictures
    )
    prompt = html.escape(request.prompt)
    return f'<div class="card">{art}<p>{prompt}</p>{why}{saw}<div class="pair">{thumbs}</div></div>'


def _img(picture: Image.Image, alt: str) -> str:
    if max(picture.size) > _SIDE:
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=84)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{data}" alt="{html.escape(alt)}">'
