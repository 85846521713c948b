"""A story as one self-contained HTML page, laid out like a picture book."""

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

_SIDE = 512  # pixels: small pictures are enlarged smoothly, browsers would blur them
_TITLE_LENGTH = 64

_STYLE = """
:root { --paper: #fbf7ee; --desk: #ece4d4; --ink: #3a2e25; --faint: #9a8a76; --accent: #b5533c; }
* { box-sizing: border-box; margin: 0; }
body { background: var(--desk); color: var(--ink); padding: 4vmin 20px 40px;
  font-family: "Iowan Old Style", "Palatino Linotype", Palatino, "Book Antiqua", "URW Palladio L",
    Georgia, "DejaVu Serif", serif; }
main { max-width: 1000px; margin: 0 auto; }
header { text-align: center; padding: 5vmin 0 6vmin; }
h1 { font-size: clamp(1.9rem, 4.6vw, 3.2rem); font-weight: 600; line-height: 1.15;
  letter-spacing: -.01em; text-wrap: balance; }
header::after { content: "\\2766"; display: block; margin-top: 1.1rem; font-size: 1.6rem;
  color: var(--accent); }
.page { position: relative; display: grid; grid-template-columns: 1fr 1fr; margin-bottom: 34px;
  min-height: 380px; background: var(--paper); border-radius: 6px; overflow: hidden;
  box-shadow: 0 1px 2px #4a36201f, 0 12px 34px #4a36202b; break-inside: avoid; }
.page::after { content: ""; position: absolute; inset: 0 calc(50% - 26px); pointer-events: none;
  background: linear-gradient(90deg, transparent, #5a42281f 50%, transparent); }
.page:nth-of-type(even) .art { order: 2; }
.art { display: grid; align-content: center; gap: 18px; padding: 34px; }
.art img { display: block; width: 100%; height: auto; border-radius: 4px;
  box-shadow: 0 0 0 1px #4a362014, 0 3px 12px #4a362026; }
.words { display: flex; flex-direction: column; justify-content: center; padding: 40px 44px 56px;
  font-size: clamp(1.2rem, 2.2vw, 1.7rem); line-height: 1.5; text-wrap: pretty;
  hanging-punctuation: first; }
.words p + p { margin-top: .8em; }
.first .words p:first-child::first-letter { float: left; font-size: 3.5em; line-height: .8;
  padding: .09em .09em 0 0; color: var(--accent); }
.number { position: absolute; bottom: 18px; right: 26px; font-size: .85rem; color: var(--faint); }
.page:nth-of-type(even) .number { right: auto; left: 26px; }
.plain { display: block; min-height: 0; }
.plain::after { display: none; }
.plain .words { padding: 56px 12%; text-align: center; }
.plain .art { max-width: 560px; margin: 0 auto; }
.end { text-align: center; font-style: italic; font-size: 1.3rem; padding: 10px 0 34px; }
footer { border-top: 1px solid #4a362026; padding-top: 16px; color: var(--faint);
  font-size: .78rem; line-height: 1.6; text-align: center; overflow-wrap: anywhere; }
@media (max-width: 700px) {
  .page { display: block; min-height: 0; }
  .page::after { display: none; }
  .art { padding: 18px 18px 0; }
  .words { padding: 24px 26px 52px; }
}
@page { size: A4 landscape; margin: 14mm; }
@media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { background: none; padding: 0; }
  main { max-width: none; }
  header { display: flex; flex-direction: column; justify-content: center; height: 175mm;
    break-after: page; padding: 0; }
  h1 { font-size: 34pt; }
  .page { height: 170mm; margin: 0; box-shadow: none; border: .3mm solid #4a362033;
    break-after: page; }
  .page .words { font-size: 17pt; }
  .end { padding-top: 30mm; }
}
"""


def story_page(
    parts: Sequence[str | Image.Image],
    settings: dict[str, Any],
    previews: Sequence[Sequence[Image.Image]] = (),
) -> str:
    """Lay a story out as spreads of a picture and the text before it.

    Args:
        parts: texts and pictures in reading order.
        settings: of the story; prompt, seed, model and sampling go into the footer.
        previews: of each picture what there was of it while it was drawn.

    Returns:
        HTML that needs no other file.
    """
    title = html.escape(_title(parts))
    spreads = "\n".join(
        _spread(text, pictures, number) for number, (text, pictures) in enumerate(_pages(parts), 1)
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="unimm">
<title>{title}</title>
<style>{_STYLE}</style>
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


def _spread(text: str, pictures: Sequence[Image.Image], number: int) -> str:
    paragraphs = [html.escape(line.strip()) for line in text.splitlines() if line.strip()]
    words = "".join(f"<p>{line}</p>" for line in paragraphs)
    art = "".join(
        f'<img src="data:image/png;base64,{_png(picture)}" alt="{html.escape(text.strip())}">'
        for picture in pictures
    )
    blocks = [f'<div class="art">{art}</div>'] if art else []
    blocks += [f'<div class="words">{words}</div>'] if words else []
    kind = "page" + (" first" if number == 1 else "") + (" plain" if len(blocks) < 2 else "")
    return (
        f'<section class="{kind}">{"".join(blocks)}<span class="number">{number}</span></section>'
    )


def _png(picture: Image.Image) -> str:
    scale = _SIDE / max(picture.size)
    if scale > 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _colophon(settings: dict[str, Any]) -> str:
    """What was asked, by which model, with which seed and sampling."""
    lines: list[str] = []
    pieces = [x if isinstance(x, str) else "[picture]" for x in settings.get("prompt", [])]
    prompt = " ".join(pieces)
    if prompt:
        lines.append(
            f"Prompt: \N{LEFT DOUBLE QUOTATION MARK}{prompt}\N{RIGHT DOUBLE QUOTATION MARK}"
        )
    facts = [f"{key} {settings[key]}" for key in ("model", "seed") if key in settings]
    if facts:
        lines.append("Written and drawn by unimm \N{MIDDLE DOT} " + " \N{MIDDLE DOT} ".join(facts))
    samplings = (
        ("text", "text"),
        ("first_page", "first picture"),
        ("later_pages", "later pictures"),
    )
    found = [f"{label}: {_sampling(settings[key])}" for key, label in samplings if key in settings]
    if found:
        lines.append(" \N{MIDDLE DOT} ".join(found))
    return "<br>\n".join(html.escape(line, quote=False) for line in lines)


def _sampling(values: dict[str, Any]) -> str:
    names = {"temperature": "temperature", "top_k": "top-k", "top_p": "top-p"}
    off = {"top_k": 0, "top_p": 1, "guidance_scale": 1}
    names["guidance_scale"] = "guidance"
    shown = [f"{names[k]} {values[k]:g}" for k in names if k in values and values[k] != off.get(k)]
    return ", ".join(shown)
