"""A document as a source gives it: texts and undecoded pictures, or the cause why there is none."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CAUSES = {
    "wrong JSON": "a line or member is not JSON in UTF-8",
    "wrong fields": "the record lacks a field of its format, or a field has another type",
    "missing member": "a caption or a picture of the sample is not there",
    "missing image": "no such file; say in 'images' where the pictures lie",
    "URL only": "download the pictures first (img2dataset), and name their folder in 'images'",
    "corrupt image": "the picture cannot be decoded",
    "huge image": "more than 'max_pixels' pixels: a decompression bomb, or a scan to shrink first",
    "wrong image size": "resize the pictures, or set resize: crop",
    "empty document": "neither text nor picture",
    "document too long": "more than 'max_pictures' pictures or 'max_characters' characters",
    "truncated tar": "the sample at the cut is lost, and what followed it: copy the file again",
    "unreadable file": "the file as a whole is broken or of another format: copy it again",
}
"""Why a document or a picture is left out -> what it means, or what to do."""


class Skipped(Exception):
    """A document or picture that cannot be used.

    Args:
        cause: what is counted, of ``CAUSES``.
        detail: what to look at, such as a file's name.
    """

    def __init__(self, cause: str, detail: str = "") -> None:
        assert cause in CAUSES, cause
        super().__init__(cause, detail)
        self.cause, self.detail = cause, detail

    def __str__(self) -> str:
        return f"{self.cause} ({self.detail})" if self.detail else self.cause


@dataclass(frozen=True, kw_only=True)
class RawPicture:
    """An undecoded picture: its bytes or its file, or why there is none.

    Attributes:
        data: content of the file.
        path: where it lies, if ``data`` is None.
        is_drawn: whether the model shall draw it; otherwise it is given.
        missing: the cause, if there is neither.
    """

    data: bytes | None = None
    path: Path | None = None
    is_drawn: bool = True
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class RawDocument:
    """Texts and pictures in order.

    Attributes:
        parts: texts and pictures.
        kind: what it is (story, caption ...).
        is_open: nothing follows its last picture.
        truth: what is known of it, as JSON values.
    """

    parts: Sequence[str | RawPicture]
    kind: str = ""
    is_open: bool = False
    truth: Any = None


def text_of(value: Any) -> str:
    """Check that a record's field is text.

    Raises:
        Skipped: it is not.
    """
    if not isinstance(value, str):
        raise Skipped("wrong fields", f"text expected, found {type(value).__name__}")
    return value


def picture_of(value: Any, folder: Path) -> RawPicture:
    """Read a picture of a record, in any form that datasets use.

    Args:
        value: bytes, ``{"bytes": ..., "path": ...}`` (the Hub's image feature), a path relative to
            the folder, or a URL.
        folder: where pictures lie.

    Raises:
        Skipped: it has another type.
    """
    if isinstance(value, dict):
        data, path = value.get("bytes"), value.get("path")
        value = data if isinstance(data, bytes) else path
    if isinstance(value, bytes):
        return RawPicture(data=value)
    if not isinstance(value, str) or not value:
        raise Skipped("wrong fields", f"picture expected, found {type(value).__name__}")
    if re.match(r"[a-z]+://", value):
        return RawPicture(missing="URL only")
    return RawPicture(path=folder / value)
