"""Where raw documents come from: the embedded world, or a user's JSON lines and picture files.

A source answers one question: what is in documents i to j? It runs in worker processes, so it holds
plain values only. ``encode.py`` turns its pictures into codes.

Shapes: N pictures of a shard, S side of a picture.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimm.data.shards import document_line
from unimm.data.world.splits import Split
from unimm.data.world.tasks import WorldMix, document_at


@dataclass(frozen=True, kw_only=True)
class RawShard:
    """Documents of one shard before its pictures are encoded.

    Attributes:
        documents: JSON lines, as ``ShardWriter.write`` wants them.
        num_documents: count of lines.
        num_images: N.
        pictures: of all documents, in order; its source knows how to show them.
        skipped: cause -> documents that were left out.
    """

    documents: bytes
    num_documents: int
    num_images: int
    pictures: Any
    skipped: Mapping[str, int] = field(default_factory=dict)


class Source(Protocol):
    """A numbered supply of documents."""

    def __len__(self) -> int:
        """Count of documents, those that will be skipped included."""
        ...

    def read(self, start: int, stop: int) -> RawShard:
        """Read documents ``start`` to ``stop``; the same every time, in any process."""
        ...

    def show(self, pictures: Any, rows: slice, device: torch.device) -> Tensor:
        """Give some of a shard's pictures as ``(n, 3, S, S)`` uint8 on a device."""
        ...


class WorldSource:
    """Documents of Storyworld; document ``i`` depends on (seed, split, i) alone.

    Args:
        split: ``train``, ``validation`` or ``heldout``.
        seed: of the world.
        num_documents: how many.
        image_size: S.
        mix: shares of the kinds of documents.
    """

    def __init__(
        self,
        *,
        split: Literal["train", "validation", "heldout"] = "train",
        seed: int = 0,
        num_documents: int,
        image_size: int = 128,
        mix: WorldMix | None = None,
    ) -> None:
        self.split, self.seed, self.num_documents = split, seed, num_documents
        self.image_size, self.mix = image_size, mix or WorldMix()
        self._renderer: Any = None

    def __len__(self) -> int:
        return self.num_documents

    def read(self, start: int, stop: int) -> RawShard:
        """Sample documents; their pictures stay packed scenes."""
        from unimm.data.world.render import pack_scenes

        split = Split[self.split.upper()]
        scenes: list[Any] = []
        lines: list[bytes] = []
        for index in range(start, stop):
            document = document_at(self.seed, index, split=split, mix=self.mix)
            parts: list[dict[str, Any]] = []
            for part in document.parts:
                if isinstance(part, str):
                    parts.append({"text": part})
                else:
                    parts.append({"image": len(scenes), "is_drawn": part.is_drawn})
                    scenes.append(part.scene)
            lines.append(
                document_line(
                    parts,
                    index=index,
                    kind=document.kind,
                    is_open=document.is_open,
                    truth=document.truth,
                )
            )
        return RawShard(
            documents=b"".join(lines),
            num_documents=len(lines),
            num_images=len(scenes),
            pictures=pack_scenes(scenes),
        )

    def show(self, pictures: Any, rows: slice, device: torch.device) -> Tensor:
        """Render packed scenes on the device."""
        from unimm.data.world.render import Renderer

        if self._renderer is None or self._renderer.device != device:
            self._renderer = Renderer(device=device)
        return self._renderer.render_packed(pictures[rows], size=self.image_size, only_rgb=True).rgb

    def __getstate__(self) -> dict[str, Any]:
        """Leave the renderer behind: worker processes only sample."""
        return self.__dict__ | {"_renderer": None}


class JsonlSource:
    """A user's documents: one JSON object a line, pictures in files.

    A line is ``{"parts": [{"text": "..."} | {"image": "path", "is_drawn": true}, ...]}``, with
    ``kind``, ``is_open`` and ``truth`` if wanted; paths are relative to the file's folder. A line
    that is not such an object, or whose picture cannot be read, is skipped and counted by cause.

    Args:
        path: the file.
        image_size: S; other pictures are cut to the centre square and resized.
        resize: ``crop``, or ``error``: then a picture of another size is a counted skip.

    Raises:
        ValueError: the file is missing or empty.
    """

    def __init__(
        self, path: str | Path, *, image_size: int = 128, resize: Literal["crop", "error"] = "crop"
    ) -> None:
        self.path, self.image_size, self.resize = Path(path), image_size, resize
        if not self.path.is_file():
            raise ValueError(f"no documents at {self.path}; give a file of JSON lines")
        self._offsets = _line_starts(self.path)
        if not self._offsets:
            raise ValueError(f"{self.path} is empty; write one JSON document a line")

    def __len__(self) -> int:
        return len(self._offsets)

    def read(self, start: int, stop: int) -> RawShard:
        """Read lines and decode their pictures."""
        pictures: list[Tensor] = []
        lines: list[bytes] = []
        skipped: Counter[str] = Counter()
        with self.path.open("rb") as file:
            for index in range(start, min(stop, len(self))):
                file.seek(self._offsets[index])
                try:
                    parts, found, fields = self._document(file.readline(), len(pictures))
                    lines.append(document_line(parts, index=index, **fields))
                except _Skip as skip:
                    skipped[str(skip)] += 1
                    continue
                pictures += found
        size = self.image_size
        empty = torch.zeros(0, 3, size, size, dtype=torch.uint8)
        return RawShard(
            documents=b"".join(lines),
            num_documents=len(lines),
            num_images=len(pictures),
            pictures=torch.stack(pictures) if pictures else empty,
            skipped=skipped,
        )

    def show(self, pictures: Any, rows: slice, device: torch.device) -> Tensor:
        """Copy decoded pictures to the device."""
        return pictures[rows].to(device)

    def _document(
        self, line: bytes, num_before: int
    ) -> tuple[list[dict[str, Any]], list[Tensor], dict[str, Any]]:
        try:
            raw = json.loads(line)
            given = raw["parts"]
            fields = {key: raw[key] for key in ("kind", "is_open", "truth") if key in raw}
            is_good = isinstance(given, list) and bool(given) and all(map(_is_part, given))
        except (ValueError, KeyError, TypeError):
            is_good, given, fields = False, [], {}
        if not is_good:
            raise _Skip("bad line")
        parts: list[dict[str, Any]] = []
        pictures: list[Tensor] = []
        for part in given:
            if "text" in part:
                parts.append({"text": part["text"]})
                continue
            number = num_before + len(pictures)
            pictures.append(self._picture(self.path.parent / part["image"]))
            parts.append({"image": number, "is_drawn": part.get("is_drawn", True)})
        return parts, pictures, fields

    def _picture(self, path: Path) -> Tensor:
        if not path.is_file():
            raise _Skip("missing image")
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            raise _Skip("corrupt image") from None
        size = (self.image_size, self.image_size)
        if image.size != size:
            if self.resize == "error":
                raise _Skip("wrong image size")
            image = _centre_square(image).resize(size, Image.Resampling.LANCZOS)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


class _Skip(Exception):
    """A document that cannot be used; the message is the cause to count."""


def _is_part(part: Any) -> bool:
    """Whether a part is text or the path of a picture."""
    if not isinstance(part, dict) or ("text" in part) == ("image" in part):
        return False
    return isinstance(part.get("text", part.get("image")), str)


def _centre_square(image: Image.Image) -> Image.Image:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _line_starts(path: Path) -> list[int]:
    """Byte offsets of the lines that hold something."""
    starts, position = [], 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                starts.append(position)
            position += len(line)
    return starts
