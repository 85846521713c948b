"""CoMM (Chen et al., 2024): instructions and visual stories in steps of texts and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from unimm.data.formats.base import FormatConfig, Samples, parse_record
from unimm.data.raw import RawDocument, RawPicture, Skipped, picture_of, text_of


@dataclass(frozen=True, kw_only=True)
class CommFormat(FormatConfig):
    """The release's ``torch.save`` lists of records with ``title, summary_info, step_info``.

    A summary or step is a list of ``{"type": "text", "content"}`` and ``{"type": "image",
    "image_path", "url"}``, with paths below ``images``, where its ``download_images.py`` put the
    pictures. The files are read as plain values only: they can run no code.
    """

    def open(self, path: Path) -> Samples:
        """Read the records of a file into memory."""
        try:
            records = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # the reader of rubbish fails in any way
            raise Skipped("unreadable file", f"{type(error).__name__} {path}") from None
        if not isinstance(records, Sequence):
            raise Skipped("unreadable file", f"{path} holds no list of records")
        return _Records(records, self.image_folder(path))


@dataclass(frozen=True)
class _Records:
    records: Sequence[Any]
    folder: Path

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> RawDocument:
        return parse_record(self._parse, self.records[number])

    def _parse(self, record: Any) -> RawDocument:
        parts: list[str | RawPicture] = []
        if record["title"] is not None:
            parts.append(text_of(record["title"]))
        for step in (record["summary_info"], *record["step_info"]):
            for content in step:
                if content["type"] == "text":
                    parts.append(text_of(content["content"]).strip(" \n"))
                elif content["type"] == "image":
                    parts.append(self._picture(content))
                else:
                    raise Skipped("wrong fields", f"content of type {content['type']!r}")
        return RawDocument(parts=parts, kind=str(record.get("dataset_type", "steps")))

    def _picture(self, content: Any) -> RawPicture:
        found = picture_of(text_of(content["image_path"]), self.folder)
        is_there = found.path is not None and found.path.is_file()
        return found if is_there or not content.get("url") else RawPicture(missing="URL only")
