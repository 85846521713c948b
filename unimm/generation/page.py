"""A story as one self-contained HTML page, laid out like a picture book."""

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image

from unimm.generation.page_style import STYLE

_SIDE = 512  # pixels: small pictures are enlarged smoothly, browsers would blur them
_LARGEST = 1024  # of a photo that was given
_MOMENT = 96
_TITLE_LENGTH = 64
_LONG = 420  # characters of a page that are set smaller


def story_page(
    parts: Sequence[str | Image.Image],
    settings: dict[str, Any],
    previews: Sequence[Sequence[Image.Image]] = (),
) -> str:
    """Lay a story out as spreads of a picture and the text before it.

    Args:
        parts: texts and pictures in reading order.
        settings: of the story; prompt, seed, model and sampling go into the footer.
        previews: of each picture what there was of it while it was drawn: a strip below it.

    Returns:
        HTML that needs no other file.
    """
    title = html.escape(_title(parts))
    strips = iter(previews)
    spreads = "\n".join(
        _spread(text, [(picture, next(strips, ())) for picture in pictures], number)
        for number, (text, pictures) in enumerate(_pages(parts), 1)
    )
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
<header><h1>{title}</h1></header>
{spreads}
<p class="end">The end</p>
<footer>{_colophon(settings)}</footer>
</main>
</body>
</html>
"""


def _title(parts: Sequence[str | Image.Image]) -> str:
    """The first sentence, cut after a word when it is long."""
    text = next((part.strip() for part in parts if isinstance(part, str) and part.strip()), "")
    sentence = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0].strip()
    if len(sentence) > _TITLE_LENGTH:
        return sentence[:_TITLE_LENGTH].rsplit(" ", 1)[0].rstrip(",;:") + " \N{HORIZONTAL ELLIPSIS}"
    return sentence.removesuffix(".") or "A story"


def _pages(parts: Sequence[str | Image.Image]) -> list[tuple[str, list[Image.Image]]]:
    """Group each text with the pictures that follow it."""
    pages: list[tuple[str, list[Image.Image]]] = []
    for part in parts:
        if isinstance(part, str):
            pages.append((part, []))
        elif pages:
            pages[-1][1].append(part)
        else:
            pages.append(("", [part]))
    return pages


def _spread(
    text: str, pictures: Sequence[tuple[Image.Image, Sequence[Image.Image]]], number: int
) -> str:
    paragraphs = [html.escape(line.strip()) for line in text.splitlines() if line.strip()]
    words = "".join(f"<p>{line}</p>" for line in paragraphs)
    alt = html.escape(text.strip())
    art = "".join(
        f'<img src="{_source(picture)}" alt="{alt}">{_strip(moments)}'
        for picture, moments in pictures
    )
    size = "words long" if len(text) > _LONG else "words"
    blocks = [f'<div class="art">{art}</div>'] if art else []
    blocks += [f'<div class="{size}">{words}</div>'] if words else []
    kind = "page" + (" first" if number == 1 else "") + (" plain" if len(blocks) < 2 else "")
    return (
        f'<section class="{kind}">{"".join(blocks)}<span class="number">{number}</span></section>'
    )


def _strip(moments: Sequence[Image.Image]) -> str:
    """How the picture was drawn, from its first marks to the last but one."""
    if not moments:
        return ""
    items = "".join(
        f'<li class="moment"><img src="{_source(moment, _MOMENT)}" alt=""></li>'
        for moment in moments
    )
    return f'<ol class="strip" aria-label="How it was drawn">{items}</ol>'


def _source(picture: Image.Image, smallest: int = _SIDE) -> str:
    """A picture as the value of ``src``, brought to a sensible size."""
    side = max(picture.size)
    scale = max(smallest / side, 1) if side < _LARGEST else _LARGEST / side
    if scale != 1:
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _colophon(settings: dict[str, Any]) -> str:
    """What was asked, by which model, with which seed and sampling."""
    facts = "".join(
        f"<dt>{html.escape(name)}</dt><dd>{html.escape(value, quote=False)}</dd>\n"
        for name, value in _facts(settings)
    )
    return f"<h2>How this was made</h2>\n<dl>\n{facts}</dl>" if facts else ""


def _facts(settings: dict[str, Any]) -> Iterator[tuple[str, str]]:
    pieces = [x if isinstance(x, str) else "[picture]" for x in settings.get("prompt", [])]
    pieces += settings.get("page_texts") or []
    if prompt := " ".join(filter(None, pieces)):
        yield "prompt", f"\N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}"
    made = [f"{key} {settings[key]}" for key in ("model", "seed") if key in settings]
    if made:
        yield "made by", "unimm, " + ", ".join(made)
    samplings = {"text": "text", "first_page": "first picture", "later_pages": "later pictures"}
    for key, label in samplings.items():
        if key in settings and (shown := _sampling(settings[key])):
            yield label, shown
    if policy := settings.get("cache_policy"):
        yield "memory", f"the newest {policy['window_pages']} pages whole, and what is anchored"


def _sampling(values: dict[str, Any]) -> str:
    names = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p"}
    names |= {"guidance_scale": "guidance", "image_guidance_scale": "guidance by earlier pictures"}
    names["num_steps"] = "steps"
    off = {"top_k": 0, "top_p": 1, "guidance_scale": 1, "image_guidance_scale": 1, "num_steps": 0}
    shown = [f"{names[k]} {values[k]:g}" for k in names if k in values and values[k] != off.get(k)]
    return ", ".join(shown)
