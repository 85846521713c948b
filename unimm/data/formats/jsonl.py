"""The project's own format: one JSON document a line, pictures in files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.formats.base import FormatConfig, JsonLines, Samples
from unimm.data.raw import RawDocument, RawPicture, Skipped, picture_of, text_of


@dataclass(frozen=True, kw_only=True)
class JsonlFormat(FormatConfig):
    """Lines ``{"parts": [{"text": "..."} | {"image": "path", "is_drawn": true}, ...]}``.

    ``kind``, ``is_open`` and ``truth`` may stand beside ``parts``.
    """

    def open(self, path: Path) -> Samples:
        """Index the lines."""
        folder = self.image_folder(path)
        return JsonLines(path, lambda record: document_of(record, folder))


def document_of(record: Any, folder: Path) -> RawDocument:
    """Read a document whose picture parts name files of a folder."""
    parts: list[str | RawPicture] = []
    for part in record["parts"]:
        if ("text" in part) == ("image" in part):
            raise Skipped("wrong fields", "a part needs either 'text' or 'image'")
        if "text" in part:
            parts.append(text_of(part["text"]))
            continue
        picture = picture_of(text_of(part["image"]), folder)
        is_drawn = bool(part.get("is_drawn", True))
        parts.append(RawPicture(path=picture.path, missing=picture.missing, is_drawn=is_drawn))
    return RawDocument(
        parts=parts,
        kind=text_of(record.get("kind", "")),
        is_open=bool(record.get("is_open", False)),
        truth=record.get("truth"),
    )
