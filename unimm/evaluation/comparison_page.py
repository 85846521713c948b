"""The comparison as one self-contained HTML page: same prompts, side by side, then every table."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from unimm.data.world.render import Renderer
from unimm.evaluation.comparison_entries import Entry
from unimm.evaluation.comparison_scaling import scaling_chart
from unimm.evaluation.picture_folder import PictureFolder
from unimm.evaluation.picture_references import true_scenes
from unimm.evaluation.picture_requests import PictureRequest, read_requests
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.report_parts import embed, embed_chart, html_document, plain_table, say_facts

ASKED = "asked for"
_HEADINGS = {
    "worldeval": ("WorldEval", "mean over the tasks, 95 % intervals over prompts"),
    "price_of_joint": ("One model for all", "what the joint model loses at the work it has done"),
    "stories": ("StoryEval", "a character told once in words: its whole look, first and later"),
    "tasks": ("WorldEval by task", "95 % intervals over prompts"),
    "share_of_ceiling": ("Share of the ceiling", "score over true renders through the tokenizer"),
    "short": ("Short of the target", "shares of the ceiling below what was aimed at"),
    "distribution": ("Pictures as a set", "distance to real ones, named by the features"),
    "scaling": ("Sizes of the trunk", "equal work; losses and scores of finished runs"),
    "training": ("Training", "a joint model's row says what all its ways took together"),
    "drawing": ("Drawing", "steps of the trunk one after another, evaluations of a head"),
}


def comparison_page(
    figures: Mapping[str, Any], grid: Sequence[tuple[str, Mapping[str, Image.Image]]], facts: Any
) -> str:
    """Lay a comparison out for people.

    Args:
        figures: see ``compare``.
        grid: prompt -> column -> its picture, see ``picture_rows``.
        facts: all that makes it again.

    Returns:
        HTML that needs no other file.
    """
    chart = {"scaling": embed_chart(scaling_chart(figures), "losses by work, scores by size")}
    sections = [
        f"<h2>{title}<small>{html.escape(note)}</small></h2>"
        f'<section class="sheet">{chart.get(name, "")}{plain_table(figures[name])}</section>'
        for name, (title, note) in _HEADINGS.items()
        if figures[name]
    ]
    title = "Ways to draw, side by side"
    runs = {x["run"] for x in figures["runs"] if x["trunk"] == figures["trunk"]}
    body = (
        f"<header><h1>{title}</h1><p>one trunk ({figures['trunk']}), one data set, one image "
        f"tokenizer, equal counted work; {len(runs)} runs</p></header>"
        f"{sections[0] if sections else ''}"
        f"<h2>Same prompts, same seeds<small>the first prompt of each task</small></h2>"
        f'<section class="sheet">{_grid(grid)}</section>'
        f"{''.join(sections[1:])}{_list('Not equal', figures['unequal'])}"
        f"{_list('Missing', figures['missing'])}"
        f"<footer>{say_facts(facts)}</footer>"
    )
    return html_document(title, body)


def picture_rows(
    entries: Sequence[Entry], *, size: int = 128
) -> list[tuple[str, dict[str, Image.Image]]]:
    """Pictures of the first prompt of each task and split, of each way's first run, and renders.

    Only ways that drew the prompts of the first one are shown: others are not side by side.
    """
    folders: dict[str, PictureFolder] = {}
    asked: list[PictureRequest] = []
    for entry in entries:
        path = entry.folder / "worldeval"
        if entry.way in folders or not (path / "requests.jsonl").is_file():
            continue
        requests = read_requests(path / "requests.jsonl")
        asked = asked or requests
        if [x.prompt for x in requests] == [x.prompt for x in asked]:
            folders[entry.way] = PictureFolder(path)
    firsts: dict[tuple[str, str], int] = {}
    for number, request in enumerate(asked):
        firsts.setdefault((request.split, request.tag), number)
    chosen = [asked[number] for number in firsts.values()]
    renders = render_pictures(true_scenes(chosen), Renderer(), size=size) if chosen else []
    rows: list[tuple[str, dict[str, Image.Image]]] = []
    for number, request, render in zip(firsts.values(), chosen, renders, strict=True):
        pictures = {ASKED: render}
        for way, folder in folders.items():
            path = folder.find(number, 0)
            if path.is_file():
                pictures[way] = Image.open(path).convert("RGB")
        rows.append((f"{request.prompt} ({request.split})", pictures))
    return rows


def _list(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<h2>{title}</h2><section class="sheet"><ul>{items}</ul></section>' if lines else ""


def _grid(rows: Sequence[tuple[str, Mapping[str, Image.Image]]]) -> str:
    columns = list(dict.fromkeys(column for _, pictures in rows for column in pictures))
    lines = ["<tr>" + "".join(f"<th>{html.escape(x)}</th>" for x in columns) + "</tr>"]
    for prompt, pictures in rows:
        said = html.escape(prompt)
        cells = "".join(
            f"<td>{embed(pictures[x], f'{x}: {prompt}') if x in pictures else ''}</td>"
            for x in columns
        )
        lines.append(f'<tr><th colspan="{len(columns)}">{said}</th></tr><tr>{cells}</tr>')
    return f'<table class="side">{"".join(lines)}</table>'
