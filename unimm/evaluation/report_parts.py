"""What reports share: the look of a page, and pictures inside it."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

_SIDE = 192  # pixels: larger pictures are made smaller

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
.sheet > img { max-width: 100%; }
tr.mean td { font-weight: 600; }
.side th, .side td { padding-right: 6px; white-space: normal; }
.side img { display: block; width: 100%; min-width: 86px; max-width: 128px; }
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


def html_document(title: str, body: str) -> str:
    """A page that needs no other file; the title is escaped already."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="unimm">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def embed(picture: Image.Image, alt: str) -> str:
    """A picture as part of the page."""
    if max(picture.size) > _SIDE:
        picture = picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=84)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{data}" alt="{html.escape(alt)}">'


def embed_chart(svg: str, alt: str) -> str:
    """An SVG file as part of the page; an empty one is nothing."""
    data = base64.b64encode(svg.encode("utf-8")).decode("ascii")
    return f'<img src="data:image/svg+xml;base64,{data}" alt="{html.escape(alt)}">' if svg else ""


def say_facts(facts: Mapping[str, Any]) -> str:
    """All that makes the run again, as it is."""
    return f"<pre>{html.escape(json.dumps(facts, indent=1, ensure_ascii=False))}</pre>"


def caption_cards(cards: Sequence[tuple[Image.Image, str, str, bool]]) -> str:
    """Pictures with what was said of them: picture, caption, true caption, whether it is right."""
    return "".join(
        f'<div class="card">{embed(picture, truth)}'
        f'<p class="{"ok" if is_right else "why"}">{html.escape(caption)}</p>'
        f'<p class="saw">true: {html.escape(truth)}</p></div>'
        for picture, caption, truth, is_right in cards
    )


def plain_table(table: Mapping[str, Mapping[str, Any]]) -> str:
    """Rows of cells, as they are."""
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    lines = ["<tr><th></th>" + "".join(f"<th>{html.escape(x)}</th>" for x in columns) + "</tr>"]
    for name, row in table.items():
        cells = "".join(f"<td>{html.escape(str(row.get(x, '')))}</td>" for x in columns)
        lines.append(f"<tr><td>{html.escape(name)}</td>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def table_page(
    title: str,
    table: Mapping[str, Mapping[str, Any]],
    sections: Sequence[tuple[str, str]],
    facts: Mapping[str, Any],
) -> str:
    """A page of one table and then sections of cards.

    Args:
        title: of the page.
        table: rows of cells.
        sections: heading and cards of each.
        facts: all that makes the run again.
    """
    cards = "".join(
        f"<h2>{html.escape(heading)}<small>failures first</small></h2>"
        f'<section class="sheet cards">{body}</section>'
        for heading, body in sections
    )
    title = html.escape(title)
    body = (
        f"<header><h1>{title}</h1></header>"
        f'<section class="sheet">{plain_table(table)}</section>{cards}'
        f"<footer>{say_facts(facts)}</footer>"
    )
    return html_document(title, body)
