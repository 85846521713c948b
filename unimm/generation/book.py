"""The finished story, and how it is saved."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from unimm.document import ImageTokens
from unimm.generation.page import story_page


@dataclass(frozen=True, kw_only=True)
class Story:
    """Text and pictures in reading order.

    Attributes:
        parts: texts and pictures; what the prompt gave is among them.
        settings: all that makes the story again: prompt, seed, model, tokenizers, sampling.
        tokens: the same parts as the model has them: text ids, or a picture's tokens.
        previews: of each picture what there was of it while it was drawn, if that was asked for.
    """

    parts: list[str | Image.Image]
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    tokens: tuple[list[int] | ImageTokens, ...] = field(default=(), repr=False)
    previews: tuple[tuple[Image.Image, ...], ...] = field(default=(), repr=False)

    @property
    def texts(self) -> list[str]:
        """The texts alone."""
        return [part for part in self.parts if isinstance(part, str)]

    @property
    def images(self) -> list[Image.Image]:
        """The pictures alone."""
        return [part for part in self.parts if not isinstance(part, str)]

    @property
    def prompt(self) -> str | list[str | Image.Image]:
        """What the story was made from, to be given to ``generate`` with its ``settings``.

        Pictures given as ``ImageTokens`` are among them as what these show: give the tokens again.
        """
        pieces: list[str | dict[str, int]] = self.settings.get("prompt", [])
        found = [x if isinstance(x, str) else self.images[x["picture"]] for x in pieces]
        texts = [x for x in found if isinstance(x, str)]
        # A list of texts alone would be many stories.
        return " ".join(texts) if len(texts) == len(found) else found

    def save(self, path: str | Path) -> Path:
        """Write the story to a file.

        Args:
            path: ``.html`` for one self-contained page to read or print; ``.json`` for the parts
                and settings, with the pictures as PNG files beside it.

        Returns:
            The path.

        Raises:
            ValueError: on another suffix.
        """
        path = Path(path)
        if path.suffix not in (".html", ".json"):
            raise ValueError(f"a story is saved as .html or .json, got {path.name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".html":
            path.write_text(story_page(self.parts, self.settings, self.previews), encoding="utf-8")
            return path
        parts: list[dict[str, str]] = []
        for part in self.parts:
            if isinstance(part, str):
                parts.append({"text": part})
                continue
            name = f"{path.stem}_{len(parts)}.png"
            part.save(path.parent / name)
            parts.append({"image": name})
        content = {"parts": parts, "settings": self.settings}
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return path
