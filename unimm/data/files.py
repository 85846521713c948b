"""A numbered supply of documents out of files of any format, with pictures decoded and checked.

Shapes: N pictures of a shard, S side of a picture.
"""

import hashlib
import io
import json
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from unimm.data.formats import FormatConfig
from unimm.data.formats.base import Samples
from unimm.data.images import cut_square, to_rgb
from unimm.data.raw import RawDocument, RawPicture, Skipped
from unimm.data.shards import document_line
from unimm.data.sources import RawShard


@dataclass(frozen=True, kw_only=True)
class PictureRule:
    """What documents and pictures must be like to be used.

    Attributes:
        image_size: S; other pictures are cut to the centre square and resized.
        resize: ``crop``, or ``error``: then a picture of another size cannot be used.
        max_pixels: larger pictures are not decoded.
        max_pictures: of a document.
        max_characters: of a document.
    """

    image_size: int = 128
    resize: Literal["crop", "error"] = "crop"
    max_pixels: int = 90_000_000
    max_pictures: int = 256
    max_characters: int = 200_000


class FileSource:
    """The documents of a format's files, one file after another.

    Args:
        config: format and files.
        rule: what can be used; the rest is skipped and counted by cause.
        num_processes: that count the files' documents; 0 counts in this one.

    Attributes:
        content_hash: of the files' names and counts, the format and the rule: document ``i`` is
            the same as long as this is.

    Raises:
        ValueError: there are no files, or no documents in them.
    """

    def __init__(
        self, config: FormatConfig, *, rule: PictureRule | None = None, num_processes: int = 0
    ) -> None:
        self.config, self.rule = config, rule or PictureRule()
        self.files = config.find()
        counts = _count(config, self.files, num_processes)
        if not sum(counts):
            raise ValueError(f"{config.files} is empty: {len(counts)} files without a document")
        self._bounds: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._opened: tuple[int, Samples | Skipped | None] = (-1, None)
        fields = {key: value for key, value in asdict(config).items() if key != "weight"}
        named = [type(config).__name__, fields, asdict(self.rule)]
        content = json.dumps([*named, [path.name for path in self.files], counts])
        self.content_hash = hashlib.sha256(content.encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def read(self, start: int, stop: int) -> RawShard:
        """Read documents ``start`` to ``stop`` and decode their pictures."""
        shard = _Shard()
        for number in range(start, min(stop, len(self))):
            try:
                document = self._document(number)
                self._take(document, number, shard)
            except Skipped as skip:
                shard.skipped[skip.cause] += 1
                shard.examples.setdefault(skip.cause, f"{self._place(number)}: {skip}")
        size = self.rule.image_size
        empty = np.zeros((0, 3, size, size), dtype=np.uint8)
        return RawShard(
            documents=b"".join(shard.lines),
            num_documents=len(shard.lines),
            num_images=len(shard.pictures),
            pictures=np.stack(shard.pictures) if shard.pictures else empty,
            skipped=dict(shard.skipped),
            dropped=dict(shard.dropped),
            examples=shard.examples,
        )

    def show(self, pictures: Any, rows: slice, device: torch.device) -> Tensor:
        """Copy decoded pictures to the device."""
        return torch.from_numpy(pictures[rows]).to(device)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file behind: worker processes open their own."""
        return self.__dict__ | {"_opened": (-1, None)}

    def _document(self, number: int) -> RawDocument:
        """A document before it is checked."""
        file = int(np.searchsorted(self._bounds, number, side="right")) - 1
        if self._opened[0] != file:
            self._opened = (file, _open(self.config, self.files[file]))
        samples = self._opened[1]
        assert samples is not None
        if isinstance(samples, Skipped):
            raise Skipped(samples.cause, samples.detail)
        return samples[number - int(self._bounds[file])]

    def _place(self, number: int) -> str:
        """Where a document lies, for people."""
        file = int(np.searchsorted(self._bounds, number, side="right")) - 1
        return f"{self.files[file]}, sample {number - int(self._bounds[file])}"

    def _take(self, document: RawDocument, number: int, shard: "_Shard") -> None:
        """Decode a document and add it to the shard.

        Raises:
            Skipped: it cannot be used; the shard is as before.
        """
        self._check_length(document)
        parts: list[dict[str, Any]] = []
        pictures: list[NDArray[np.uint8]] = []
        dropped: list[Skipped] = []
        for part in document.parts:
            if isinstance(part, str):
                if part.strip():
                    parts.append({"text": part})
                continue
            try:
                pictures.append(_decode(part, self.rule))
            except Skipped as skip:
                if self.config.bad_picture == "skip":
                    raise
                dropped.append(skip)
                continue
            place = len(shard.pictures) + len(pictures) - 1
            parts.append({"image": place, "is_drawn": part.is_drawn})
        if not parts:
            raise Skipped("empty document")
        # A caption pair without its picture is no pair: its text would be the whole document.
        is_open = document.is_open and "image" in parts[-1]
        shard.lines.append(
            document_line(
                parts, index=number, kind=document.kind, is_open=is_open, truth=document.truth
            )
        )
        shard.pictures += pictures
        for skip in dropped:
            shard.dropped[skip.cause] += 1
            shard.examples.setdefault(skip.cause, f"{self._place(number)}: {skip}")

    def _check_length(self, document: RawDocument) -> None:
        num_pictures = sum(isinstance(part, RawPicture) for part in document.parts)
        num_characters = sum(len(part) for part in document.parts if isinstance(part, str))
        if num_pictures > self.rule.max_pictures or num_characters > self.rule.max_characters:
            detail = f"{num_pictures} pictures, {num_characters} characters"
            raise Skipped("document too long", detail)


class _Shard:
    """What ``read`` collects."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.pictures: list[NDArray[np.uint8]] = []
        self.skipped: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}


def _open(config: FormatConfig, path: Path) -> Samples | Skipped:
    try:
        return config.open(path)
    except Skipped as skip:
        return skip


def _count_one(config: FormatConfig, path: Path) -> int:
    """Documents of a file; a broken one counts as one, so that it is skipped and counted."""
    samples = _open(config, path)
    return 1 if isinstance(samples, Skipped) else len(samples)


def _count(config: FormatConfig, files: Sequence[Path], num_processes: int) -> list[int]:
    if num_processes == 0 or len(files) == 1:
        return [_count_one(config, path) for path in files]
    with ProcessPoolExecutor(
        min(num_processes, len(files)), mp_context=get_context("spawn")
    ) as pool:
        return list(pool.map(_count_one, [config] * len(files), files, chunksize=8))


def _decode(picture: RawPicture, rule: PictureRule) -> NDArray[np.uint8]:
    """Decode a picture, ``(3, S, S)``.

    Raises:
        Skipped: it cannot be used.
    """
    if picture.missing:
        raise Skipped(picture.missing)
    name = str(picture.path or "")
    if picture.path is not None and not picture.path.is_file():
        raise Skipped("missing image", name)
    source = picture.path if picture.data is None else io.BytesIO(picture.data)
    assert source is not None
    size = (rule.image_size, rule.image_size)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(source)
        with file:
            if file.width * file.height > rule.max_pixels:
                raise Skipped("huge image", f"{file.width}x{file.height} {name}")
            if file.size != size and rule.resize == "error":
                raise Skipped("wrong image size", f"{file.width}x{file.height} {name}")
            # A JPEG is decoded at a half, quarter or eighth where that is still twice as large.
            file.draft("RGB", (2 * rule.image_size, 2 * rule.image_size))
            image = to_rgb(file)
    except Image.DecompressionBombError as error:
        raise Skipped("huge image", f"{error} {name}") from None
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise Skipped("corrupt image", f"{error} {name}") from None
    if image.size != size:
        image = cut_square(image, rule.image_size)
    return np.array(image).transpose(2, 0, 1)
