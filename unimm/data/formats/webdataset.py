"""Tar shards of webdataset: members of one name are one sample, read in place."""

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from unimm.data.formats.base import FormatConfig, Samples, parse_json, parse_record
from unimm.data.formats.captions import caption_pair
from unimm.data.formats.jsonl import document_of
from unimm.data.images import SUFFIXES
from unimm.data.raw import RawDocument, RawPicture, Skipped, text_of

_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True, kw_only=True)
class WebdatasetFormat(FormatConfig):
    """Uncompressed tar files, as ``webdataset`` and ``img2dataset`` write them.

    A sample is either a caption pair, ``key.jpg`` (or png, webp, bmp) with ``key.txt`` or with
    ``caption`` or ``text`` in ``key.json``; or interleaved, ``key.json`` with ``parts`` as in the
    JSONL format, whose pictures are named by what follows the key: ``{"image": "0.jpg"}`` is the
    member ``key.0.jpg``.
    """

    def open(self, path: Path) -> Samples:
        """Index the members."""
        return TarSamples(path)


class TarSamples:
    """Samples of a tar file; of a truncated one those before the cut, and one for the cut.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._samples: list[tuple[str, dict[str, tuple[int, int]]]] = []
        try:
            self._file: BinaryIO = path.open("rb")
            is_whole = self._index()
        except (OSError, tarfile.TarError) as error:
            raise Skipped("unreadable file", str(error)) from None
        # Where the cut is inside the last sample's next member cannot be known: it is lost too.
        self._cut = None if is_whole else max(len(self._samples) - 1, 0)

    def __len__(self) -> int:
        return max(len(self._samples), 0 if self._cut is None else 1)

    def __getitem__(self, number: int) -> RawDocument:
        if number == self._cut:
            raise Skipped("truncated tar")
        key, members = self._samples[number]
        record = parse_json(self._read(members["json"])) if "json" in members else {}
        if isinstance(record, dict) and "parts" in record:
            return parse_record(lambda found: self._interleaved(found, key, members), record)
        picture = next((ext for ext in members if f".{ext}" in SUFFIXES), None)
        if picture is None:
            raise Skipped("missing member", f"no picture of {key}")
        if "txt" in members:
            try:
                caption = self._read(members["txt"]).decode()
            except UnicodeDecodeError as error:
                raise Skipped("wrong fields", f"caption of {key}: {error}") from None
        elif isinstance(record, dict) and ("caption" in record or "text" in record):
            caption = text_of(record.get("caption", record.get("text")))
        else:
            raise Skipped("missing member", f"no caption of {key}")
        return caption_pair(caption.strip(), RawPicture(data=self._read(members[picture])))

    def _interleaved(
        self, record: dict[str, object], key: str, members: dict[str, tuple[int, int]]
    ) -> RawDocument:
        document = document_of(record, Path())
        parts: list[str | RawPicture] = []
        for part in document.parts:
            if isinstance(part, RawPicture) and part.path is not None:
                if str(part.path) not in members:
                    raise Skipped("missing member", f"no {part.path} of {key}")
                data = self._read(members[str(part.path)])
                part = RawPicture(data=data, is_drawn=part.is_drawn)
            parts.append(part)
        return RawDocument(
            parts=parts, kind=document.kind, is_open=document.is_open, truth=document.truth
        )

    def _index(self) -> bool:
        """Note where the members of every sample lie; tell whether the file ends as it should."""
        end = 0
        with tarfile.open(fileobj=self._file, mode="r:") as archive:
            try:
                for member in archive:
                    end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                    if member.isfile():
                        self._add(member)
            except tarfile.TarError:
                return False
        self._file.seek(end)
        last = self._file.read(_BLOCK)
        return len(last) == _BLOCK and not any(last)

    def _add(self, member: tarfile.TarInfo) -> None:
        path = PurePosixPath(member.name)
        stem, _, ext = path.name.partition(".")
        key = str(path.parent / stem)
        if not self._samples or self._samples[-1][0] != key:
            self._samples.append((key, {}))
        self._samples[-1][1][ext.lower()] = (member.offset_data, member.size)

    def _read(self, place: tuple[int, int]) -> bytes:
        offset, size = place
        self._file.seek(offset)
        return self._file.read(size)
