"""What a format of documents is: a config that finds files, and samples of a file by number."""

import glob
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from unimm.data.raw import RawDocument, Skipped

PageOrder = Literal["text_first", "image_first"]
"""Whether a page's text stands before its picture, so that the picture is drawn from it."""


class Samples(Protocol):
    """The documents of one file by number, in any order and the same every time."""

    def __len__(self) -> int:
        """Count of samples, those that cannot be used included."""
        ...

    def __getitem__(self, number: int) -> RawDocument:
        """Read one.

        Raises:
            Skipped: it cannot be used.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class FormatConfig:
    """One source of documents in a format; each format is a subclass in a file of its own.

    Attributes:
        files: where the files lie, with ``*``, ``?`` and ``**`` if wanted; read in sorted order.
        images: folder of pictures that records name by path; by default beside the file.
        weight: how often a document of this source is seen in training, relative to documents of
            the mixture's other sources; 2 is twice as often.
        bad_picture: ``skip`` leaves a document out if one of its pictures cannot be used; ``drop``
            leaves out the picture alone.
    """

    files: str
    images: str = ""
    weight: float = 1.0
    bad_picture: Literal["skip", "drop"] = "skip"

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"weight must be positive, got {self.weight}; leave the source out")

    def find(self) -> list[Path]:
        """The files, sorted.

        Raises:
            ValueError: there are none.
        """
        found = sorted(map(Path, glob.glob(self.files, recursive=True)))
        if not found:
            raise ValueError(f"no documents at {self.files!r}; give a file, or a pattern of files")
        return found

    def image_folder(self, path: Path) -> Path:
        """Where the pictures of a file lie."""
        return Path(self.images) if self.images else path.parent

    def open(self, path: Path) -> Samples:
        """Index a file.

        Raises:
            Skipped: the whole file cannot be read.
        """
        raise NotImplementedError


class JsonLines:
    """The lines of a file of JSON objects.

    Args:
        path: the file.
        parse: turns one object into a document; may raise ``Skipped``, and a ``KeyError`` or
            ``TypeError`` for fields that are not as the format says.
    """

    def __init__(self, path: Path, parse: Callable[[Any], RawDocument]) -> None:
        self._parse = parse
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise Skipped("unreadable file", str(error)) from None
        starts, position = [], 0
        for line in self._file:
            if line.strip():
                starts.append(position)
            position += len(line)
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> RawDocument:
        self._file.seek(int(self._starts[number]))
        return parse_record(self._parse, parse_json(self._file.readline()))


def parse_json(text: bytes) -> Any:
    """Read JSON.

    Raises:
        Skipped: it is none.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise Skipped("wrong JSON", str(error)) from None


def parse_record(parse: Callable[[Any], RawDocument], record: Any) -> RawDocument:
    """Turn a record into a document; fields that are not as the format says become a skip."""
    try:
        return parse(record)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Skipped("wrong fields", f"{type(error).__name__}: {error}") from None
