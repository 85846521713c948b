"""Folders of captioned pictures: a text file beside each, or one list of captions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unimm.data.formats.base import FormatConfig, JsonLines, Samples
from unimm.data.images import SUFFIXES
from unimm.data.raw import RawDocument, RawPicture, Skipped, picture_of, text_of

LIST = "metadata.jsonl"


@dataclass(frozen=True, kw_only=True)
class CaptionFormat(FormatConfig):
    """Folders of ``name.jpg`` with ``name.txt``, or with one ``metadata.jsonl``.

    The list holds lines ``{"file_name": "name.jpg", "text": "..."}`` (``ImageFolder`` of
    ``datasets``); ``caption`` may stand for ``text``. ``files`` names folders.
    """

    def open(self, path: Path) -> Samples:
        """List the pictures of a folder and the folders in it."""
        if not path.is_dir():
            raise Skipped("unreadable file", f"{path} is no folder")
        if (path / LIST).is_file():
            return JsonLines(path / LIST, lambda record: _listed(record, path))
        return _Pairs(path)


def caption_pair(caption: str, picture: RawPicture) -> RawDocument:
    """Words and the picture to be drawn from them."""
    return RawDocument(parts=(caption, picture), kind="caption", is_open=True)


def _listed(record: Any, folder: Path) -> RawDocument:
    caption = record["text"] if "text" in record else record["caption"]
    return caption_pair(text_of(caption), picture_of(text_of(record["file_name"]), folder))


class _Pairs:
    """Pictures with text files beside them."""

    def __init__(self, folder: Path) -> None:
        self._paths = list(self._pictures(folder))

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> RawDocument:
        path = self._paths[number]
        try:
            caption = path.with_suffix(".txt").read_text(encoding="utf-8")
        except OSError:
            raise Skipped("missing member", f"no caption beside {path.name}") from None
        except UnicodeDecodeError as error:
            raise Skipped("wrong fields", f"caption of {path.name}: {error}") from None
        return caption_pair(caption.strip(), RawPicture(path=path))

    @staticmethod
    def _pictures(folder: Path) -> Iterator[Path]:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() in SUFFIXES:
                yield path
