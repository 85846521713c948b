"""What a folder of encoded shards says of itself: manifest, entries of its shards, totals.

Shapes: h w the code grid, n side of a scale's grid.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from unimm.document import ImageTokens
from unimm.tokenizer.pyramid import parse_schedule
from unimm.tokenizer.schedules import SINGLE

INDEX = "index.json"
_FORMAT = 1
_HEADER = "shard"


@dataclass(frozen=True, kw_only=True)
class ShardManifest:
    """What all shards of a folder share.

    Attributes:
        tokenizer_hash: content hash of the image tokenizer that made the codes.
        codebook_size: codes are below this.
        grid_size: ``(h, w)`` of every picture.
        split: name of the split.
        seed: of the source.
        documents_per_shard: documents that a shard covers, skipped ones included.
        schedules: code layouts of every picture.
        latent_dim: channels of the latents that shards hold in half precision; 0 without latents.
        content_hash: of the files that the documents come from, if they are files.
        command: how the folder was made.
    """

    tokenizer_hash: str
    codebook_size: int
    grid_size: tuple[int, int]
    split: str
    seed: int
    documents_per_shard: int
    schedules: tuple[str, ...] = (SINGLE,)
    latent_dim: int = 0
    content_hash: str = ""
    command: str = ""

    def blank(self, schedule: str, count: int) -> ImageTokens:
        """Pictures of code 0: what ``count`` pictures of a schedule look like."""
        codes = torch.zeros(count, *self.grid_size, dtype=torch.int64)
        scales = () if schedule == SINGLE else parse_schedule(schedule)
        return ImageTokens(
            codes=codes,
            scale_codes=tuple(codes.new_zeros(count, n, n) for n in scales),
            latents=torch.zeros(count, self.latent_dim, *self.grid_size)
            if self.latent_dim
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """What a shard holds.

    Attributes:
        file: name in the folder.
        num_documents: that it holds.
        num_images: that it holds.
        bytes: size of the file.
        skipped: cause -> documents that were left out.
        dropped: cause -> pictures that were left out of documents.
    """

    file: str
    num_documents: int
    num_images: int
    bytes: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def num_read(self) -> int:
        """Documents of the source, the skipped ones included."""
        return self.num_documents + sum(self.skipped.values())

    def to_metadata(self, manifest: ShardManifest) -> dict[str, str]:
        """What a shard's own header says: enough to find a broken run's shards again."""
        # One key: safetensors writes several in random order, and equal shards would differ.
        return {_HEADER: json.dumps({"manifest": asdict(manifest), "entry": asdict(self)})}


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Counts of a folder.

    Attributes:
        documents: that it holds.
        pictures: that it holds.
        read: documents of the source, the skipped ones included.
        skipped: cause -> documents that were left out.
        dropped_pictures: cause -> pictures that were left out of documents.
    """

    documents: int
    pictures: int
    read: int
    skipped: Mapping[str, int]
    dropped_pictures: Mapping[str, int]

    @staticmethod
    def of(entries: Sequence[ShardEntry]) -> "Totals":
        """Sum over shards."""
        skipped: Counter[str] = Counter()
        dropped: Counter[str] = Counter()
        for entry in entries:
            skipped.update(entry.skipped)
            dropped.update(entry.dropped)
        documents = sum(entry.num_documents for entry in entries)
        return Totals(
            documents=documents,
            pictures=sum(entry.num_images for entry in entries),
            read=documents + skipped.total(),
            skipped=dict(sorted(skipped.items())),
            dropped_pictures=dict(sorted(dropped.items())),
        )


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard_{number:05d}.safetensors"


def read_header(path: Path) -> tuple[ShardManifest, ShardEntry] | None:
    """Read what a shard says of itself; None if it is not there, not whole, or says nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
        entry = header["entry"] | {"bytes": path.stat().st_size}
        return _manifest(header["manifest"]), ShardEntry(**entry)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None


def write_index(folder: Path, manifest: ShardManifest, entries: Sequence[ShardEntry]) -> None:
    """Write the index, atomically; processes that write the same at once do no harm."""
    index = {
        "format": _FORMAT,
        "manifest": asdict(manifest),
        "totals": asdict(Totals.of(entries)),
        "shards": [asdict(entry) for entry in entries],
    }
    temporary = folder / f"{INDEX}.{os.getpid()}.partial"
    temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    replace(temporary, folder / INDEX)


def read_index(folder: Path) -> tuple[ShardManifest, list[ShardEntry]]:
    """Read what the folder holds.

    Raises:
        ValueError: there is no index, or it is of another format.
    """
    path = folder / INDEX
    if not path.is_file():
        if any(folder.glob(shard_name(0).replace("00000", "*"))):
            raise ValueError(
                f"{folder} holds shards but no {INDEX}: encoding has not ended; run the command "
                "that writes the folder once more"
            )
        raise ValueError(
            f"no {INDEX} in {folder}: give a folder that tokenizers/encode_shards.py wrote"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != _FORMAT:
            raise ValueError(f"format {index['format']}, this code reads {_FORMAT}")
        return _manifest(index["manifest"]), [ShardEntry(**entry) for entry in index["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an index of shards ({error}): encode again") from error


def replace(temporary: Path, path: Path) -> None:
    """Rename after the content is on disk, so that a crash leaves the old file or the new one."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def check_same_source(folder: Path, old: ShardManifest, new: ShardManifest) -> None:
    """Refuse to mix documents of two sources or codes of two tokenizers in a folder.

    Raises:
        ValueError: the manifests differ in more than the command.
    """
    for field_name, value in asdict(old).items():
        wanted = getattr(new, field_name)
        if field_name != "command" and value != wanted:
            raise ValueError(
                f"{folder} holds shards with {field_name} {value}, this run would add {wanted}: "
                "choose another folder or delete this one"
            )


def _manifest(fields: Mapping[str, Any]) -> ShardManifest:
    plain: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return ShardManifest(**plain)
