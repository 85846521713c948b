"""StoryStream (Yang et al., 2024): long stories of cartoon frames, a text each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.formats.base import FormatConfig, JsonLines, PageOrder, Samples
from unimm.data.raw import RawDocument, RawPicture, picture_of, text_of


@dataclass(frozen=True, kw_only=True)
class StoryStreamFormat(FormatConfig):
    """Lines ``{"images": [path, ...], "captions": [text, ...]}`` with paths below ``images``.

    Attributes:
        order: whether a page's text stands before or after its picture.
    """

    order: PageOrder = "text_first"

    def open(self, path: Path) -> Samples:
        """Index the lines."""
        folder = self.image_folder(path)

        def parse(record: Any) -> RawDocument:
            parts: list[str | RawPicture] = []
            for image, caption in zip(record["images"], record["captions"], strict=True):
                page = [text_of(caption), picture_of(text_of(image), folder)]
                parts += page if self.order == "text_first" else page[::-1]
            return RawDocument(parts=parts, kind="story")

        return JsonLines(path, parse)
