"""A picture of many stories: one a row, each page with its text and the detector's verdict."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unimm.evaluation.stories import LOOKS, PageScore

_STRIP = 62  # pixels of text under a picture
_PAD = 6
_RIGHT, _WRONG, _TEXT = (20, 120, 40), (190, 20, 20), (30, 30, 30)


@dataclass(frozen=True, kw_only=True)
class GridPage:
    """One cell.

    Attributes:
        pixels: ``(H, W, 3)`` uint8, or None for a picture that failed.
        text: what the page says.
        score: the verdict; None for a given picture.
    """

    pixels: np.ndarray | None
    text: str
    score: PageScore | None


def verdict(score: PageScore | None) -> tuple[str, bool]:
    """Say a page's verdict in a line, and whether it is all right."""
    if score is None:
        return "given", True
    words, is_right = [], True
    for character in score.characters:
        if character.right["all"]:
            words.append(f"{character.name}: right")
            continue
        is_right = False
        wrong = [character.seen.get(name, "-") for name in LOOKS if not character.right[name]]
        words.append(f"{character.name}: {', '.join(wrong)}?" if character.seen else "nobody?")
    if not score.has_right_number:
        words.append("number wrong")
        is_right = False
    return "; ".join(words), is_right


def story_grid(
    stories: Sequence[Sequence[GridPage]], *, size: int = 160, max_stories: int = 24
) -> Image.Image:
    """Draw stories as rows, those with most wrong pages first.

    Args:
        stories: their pages.
        size: side of a picture in pixels.
        max_stories: rows.
    """
    rows = sorted(stories, key=_num_right)[:max_stories]
    columns = max((len(pages) for pages in rows), default=1)
    cell = (size + _PAD, size + _STRIP + _PAD)
    canvas = Image.new("RGB", (columns * cell[0] + _PAD, len(rows) * cell[1] + _PAD), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=10)
    for row, pages in enumerate(rows):
        for column, page in enumerate(pages):
            left, top = _PAD + column * cell[0], _PAD + row * cell[1]
            picture = Image.new("RGB", (size, size), (225, 225, 225))
            if page.pixels is not None:
                picture = Image.fromarray(page.pixels).resize(
                    (size, size), Image.Resampling.LANCZOS
                )
            canvas.paste(picture, (left, top))
            said, is_right = verdict(page.score) if page.pixels is not None else ("failed", False)
            draw.text((left, top + size + 1), said[:32], _RIGHT if is_right else _WRONG, font)
            lines = textwrap.wrap(page.text, width=size // 5)[:4]
            draw.text((left, top + size + 13), "\n".join(lines), _TEXT, font, spacing=1)
    return canvas


def _num_right(pages: Sequence[GridPage]) -> int:
    return sum(page.pixels is not None and verdict(page.score)[1] for page in pages)
