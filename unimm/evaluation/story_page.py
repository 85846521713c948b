"""The report of stories as one self-contained HTML page: scores, then stories, failures first."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from unimm.evaluation.report_parts import html_document, say_facts
from unimm.evaluation.story_grid import GridPage, story_grid
from unimm.evaluation.story_summary import SetResult

_TITLES = {
    "headline": "Identity: is it the character that the text names?",
    "heldout": "All-right looks, seen in training and held out",
    "context": "Later looks with and without context",
    "controls": "Controls: what does the look follow, where two explanations differ?",
    "by_page": "Identity by page",
    "pages": "Pages",
    "carried_since_said": "Carried state, by pages since the text last said it",
    "carried_since_shown": "Carried state, by pages since its subject was last shown",
    "text_atoms": "Text atoms: does the picture show what its own text says?",
    "consistency": "Consistency of pages with each other",
    "copies": "Copies of earlier pages (less is better)",
}
_NUM_FIRST = 4  # tables before the pictures; the others are for who wants to know it all
# Rows of many references need more room than a page of pictures.
_WIDE = "main { max-width: 1420px; } th { white-space: normal; vertical-align: bottom; }"
_WIDE += " td { font-size: .84rem; } .sheet > img { max-width: 100%; }"


def story_page(
    summary: Mapping[str, Any], results: Sequence[SetResult], *, max_rows: int = 10
) -> str:
    """Lay a run out for people.

    Args:
        summary: see ``summarise_stories``.
        results: all sets and controls.
        max_rows: stories shown of each; failures come first.

    Returns:
        HTML that needs no other file.
    """
    facts = summary["facts"]
    name = html.escape(str(facts["generator"]["model"]))
    tables = [_section(title, summary[key]) for key, title in _TITLES.items() if summary.get(key)]
    first, details = "".join(tables[:_NUM_FIRST]), "".join(tables[_NUM_FIRST:])
    grids = "".join(_gallery(result, max_rows) for result in results)
    number = sum(len(result.stories) for result in results)
    failed = summary["failed"]
    fate = "all pictures could be judged"
    if failed:
        fate = f"<strong>{failed:,} pictures failed</strong> and count as wrong"
    body = f"""<style>{_WIDE}</style>
<header><h1>StoryEval: {name}</h1>
<p>{number:,} stories; {fate}</p></header>
{first}
{grids}
{details}
<footer>Scores are shares with their 95 % intervals over stories. Ceilings: true renders, and the
same after the image tokenizer. Random image: the same page of other stories. Nearest neighbour:
the training picture that shows most of what is asked. No context: each page drawn alone.
Described: each page drawn alone from a text that says all it must remember.
{say_facts(facts)}</footer>"""
    return html_document(f"StoryEval: {name}", body)


def _section(title: str, rows: Mapping[str, Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    head = "".join(f"<th>{html.escape(column)}</th>" for column in ("", *columns))
    lines = "".join(
        f"<tr><td>{html.escape(name)}</td>{''.join(_cell(row, column) for column in columns)}</tr>"
        for name, row in rows.items()
    )
    return (
        f"<h2>{html.escape(title)}</h2>"
        f'<section class="sheet"><table><tr>{head}</tr>{lines}</table></section>'
    )


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column, "")
    kind = ' class="bad"' if column == "failed" and value else ""
    said = f"{value:.3f}" if isinstance(value, float) else str(value)
    return f"<td{kind}>{html.escape(said)}</td>"


def _gallery(result: SetResult, max_rows: int) -> str:
    rows = []
    for story in result.stories:
        verdicts = {score.page: score for score in story.scores}
        pages = [
            GridPage(pixels=pixels, text=text, score=verdicts.get(page))
            for page, (text, pixels) in enumerate(
                zip(story.page_texts, story.pictures, strict=True)
            )
        ]
        rows.append(pages)
    shown = min(max_rows, len(rows))
    grid = _img(story_grid(rows, max_stories=max_rows), result.key)
    return (
        f"<h2>{html.escape(result.key)}<small>{shown} of {len(rows)} stories, failures first"
        f'</small></h2><section class="sheet">{grid}</section>'
    )


def _img(picture: Image.Image, alt: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=84)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/webp;base64,{data}" alt="{html.escape(alt)}">'
