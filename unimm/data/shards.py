"""Encoded shards: documents whose pictures are already codes, in a folder of safetensors files.

A shard holds its pictures' codes, in every schedule of the folder, if asked for also the
``latents (N, C, h, w)`` they come from, and its documents as JSON lines; ``index.json`` says what
the folder holds and which image tokenizer made it. Training reads the files as memory maps.

Shapes: N pictures of a shard, h w the code grid, n side of a scale's grid, C latent channels.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimm.document import ImageTokens
from unimm.tokenizer.pyramid import parse_schedule
from unimm.tokenizer.schedules import SINGLE

INDEX = "index.json"
_FORMAT = 1
_LATENTS = "latents"


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


class ShardWriter:
    """Writes shards one by one; what is whole already is kept, so a broken run is just repeated.

    Args:
        folder: made when missing.
        manifest: what the shards share.

    Raises:
        ValueError: the folder holds shards of another tokenizer, split, seed or size.
    """

    def __init__(self, folder: str | Path, *, manifest: ShardManifest) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self._entries: dict[str, dict[str, Any]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / INDEX).is_file():
            index = _read_index(self.folder)
            _check_same_source(self.folder, index["manifest"], manifest)
            self._entries = {entry["file"]: entry for entry in index["shards"]}

    def has(self, number: int) -> bool:
        """Whether this shard is there, whole."""
        entry = self._entries.get(_file_name(number))
        path = self.folder / _file_name(number)
        return entry is not None and path.is_file() and path.stat().st_size == entry["bytes"]

    def write(
        self,
        number: int,
        *,
        documents: bytes,
        num_documents: int,
        images: Mapping[str, ImageTokens],
    ) -> None:
        """Write one shard and then the index, each atomically.

        Args:
            number: of the shard, from 0.
            documents: JSON lines, one a document: ``index, kind, is_open, parts, truth``; a picture
                part is ``{"image": k, "is_drawn": bool}`` with k its row of ``images``.
            num_documents: count of lines.
            images: schedule -> all pictures of the shard, stacked; all hold the same ``latents`` if
                the manifest says so.
        """
        assert tuple(images) == self.manifest.schedules, (images.keys(), self.manifest.schedules)
        path = self.folder / _file_name(number)
        tensors = {"documents": torch.frombuffer(bytearray(documents or b"\n"), dtype=torch.uint8)}
        num_images = 0
        for schedule, stacked in images.items():
            for name, tensor in _named(schedule, stacked).items():
                tensors[name] = tensor.cpu().to(torch.uint16).contiguous()
                num_images = len(tensor)
            if self.manifest.latent_dim:
                latents = stacked.latents
                assert latents is not None and latents.shape[1] == self.manifest.latent_dim
                tensors[_LATENTS] = latents.cpu().to(torch.float16).contiguous()
        temporary = path.with_suffix(".partial")
        save_file(tensors, temporary, metadata={"num_documents": str(num_documents)})
        _replace(temporary, path)
        self._entries[path.name] = {
            "file": path.name,
            "num_documents": num_documents,
            "num_images": num_images,
            "bytes": path.stat().st_size,
        }
        self._write_index()

    def _write_index(self) -> None:
        shards = [self._entries[name] for name in sorted(self._entries)]
        index = {"format": _FORMAT, "manifest": asdict(self.manifest), "shards": shards}
        temporary = self.folder / f"{INDEX}.partial"
        temporary.write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        _replace(temporary, self.folder / INDEX)


class ShardFolder:
    """Reads a folder of shards: documents by number, codes by shard.

    Args:
        folder: what ``ShardWriter`` wrote.
        tokenizer_hash: of the image tokenizer that the run uses; None does not ask.

    Raises:
        ValueError: no folder, a missing or truncated shard, another tokenizer, or codes that do not
            fit the codebook. The message names the file and the remedy.
    """

    def __init__(self, folder: str | Path, *, tokenizer_hash: str | None = None) -> None:
        self.folder = Path(folder)
        index = _read_index(self.folder)
        self.manifest: ShardManifest = index["manifest"]
        if tokenizer_hash is not None and tokenizer_hash != self.manifest.tokenizer_hash:
            raise ValueError(
                f"the shards in {self.folder} were encoded by image tokenizer "
                f"{self.manifest.tokenizer_hash}, but this run uses {tokenizer_hash}: encode the "
                "documents again (tokenizers/encode_shards.py), or use that tokenizer"
            )
        self.images: list[dict[str, ImageTokens]] = []
        self._documents: list[bytes] = []
        for entry in index["shards"]:
            images, documents = self._open(entry)
            self.images.append(images)
            self._documents.append(documents)
        self.num_documents = sum(entry["num_documents"] for entry in index["shards"])
        self.num_images = sum(entry["num_images"] for entry in index["shards"])
        if self.num_documents == 0:
            raise ValueError(f"{self.folder} holds no documents; encode some first")

    def documents(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give every document with the number of its shard, in order."""
        for shard, lines in enumerate(self._documents):
            for line in lines.splitlines():
                if line:
                    yield shard, json.loads(line)

    def copy_agreement(self) -> dict[str, float]:
        """Pyramid -> share of its sums' single-scale codes that encoding directly gives too."""
        if SINGLE not in self.manifest.schedules or self.num_images == 0:
            return {}
        shares: dict[str, float] = {}
        for schedule in self.manifest.schedules:
            if schedule == SINGLE:
                continue
            counts = [
                (images[schedule].codes.numpy() == images[SINGLE].codes.numpy()).sum()  # pyright: ignore
                for images in self.images
            ]
            height, width = self.manifest.grid_size
            shares[schedule] = float(sum(counts)) / (self.num_images * height * width)
        return shares

    def _open(self, entry: Mapping[str, Any]) -> tuple[dict[str, ImageTokens], bytes]:
        path = self.folder / entry["file"]
        remedy = "encode it again by running the command that made the folder once more"
        if not path.is_file():
            raise ValueError(f"shard {path} is missing, though {INDEX} lists it: {remedy}")
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ValueError(f"shard {path} has {size} bytes of {entry['bytes']}: {remedy}")
        try:
            with safe_open(path, framework="pt") as file:
                images = {name: self._read(file, name) for name in self.manifest.schedules}
                documents = file.get_tensor("documents").numpy().tobytes()
        except SafetensorError as error:
            raise ValueError(f"shard {path} cannot be read ({error}): {remedy}") from error
        for schedule, stacked in images.items():
            for codes in _named(schedule, stacked).values():
                largest = int(codes.numpy().max(initial=0))
                if largest >= self.manifest.codebook_size:
                    raise ValueError(
                        f"shard {path} holds code {largest}, but its image tokenizer has "
                        f"{self.manifest.codebook_size} codes: {remedy}"
                    )
        return images, documents

    def _read(self, file: Any, schedule: str) -> ImageTokens:
        """A schedule's pictures, as memory maps."""
        blank = self.manifest.blank(schedule, 0)
        found: dict[str, Tensor] = {name: file.get_tensor(name) for name in _named(schedule, blank)}
        codes, *scale_codes = found.values()
        latents = file.get_tensor(_LATENTS) if self.manifest.latent_dim else None
        return ImageTokens(codes=codes, scale_codes=tuple(scale_codes), latents=latents)


def document_line(
    parts: Sequence[Mapping[str, Any]],
    *,
    index: int,
    kind: str = "",
    is_open: bool = False,
    truth: Any = None,
) -> bytes:
    """Write one document's JSON line.

    Args:
        parts: ``{"text": ...}`` or ``{"image": k, "is_drawn": ...}``.
        index: number of the document in its source.
        kind: what it is (story, caption ...).
        is_open: nothing follows its last picture.
        truth: what is known of it, as JSON values.
    """
    line = {"index": index, "kind": kind, "is_open": is_open, "parts": parts, "truth": truth}
    return (
        json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=_plain).encode() + b"\n"
    )


def _plain(value: Any) -> Any:
    """JSON of what truths may hold beside plain values."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} {value!r} of a document's truth is not JSON")


def _named(schedule: str, images: ImageTokens) -> dict[str, Tensor]:
    """The codes of a schedule by their names in a shard, single-scale codes first."""
    assert images.codes is not None
    prefix = "" if schedule == SINGLE else f"{schedule}."
    scales = {f"{prefix}{k}": codes for k, codes in enumerate(images.scale_codes)}
    return {f"{prefix}codes": images.codes, **scales}


def _file_name(number: int) -> str:
    return f"shard_{number:05d}.safetensors"


def _replace(temporary: Path, path: Path) -> None:
    """Rename after the content is on disk, so that a crash leaves the old file or the new one."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(
            f"no {INDEX} in {folder}: give a folder that tokenizers/encode_shards.py wrote"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        fields = index["manifest"]
        lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
        index["manifest"] = ShardManifest(**(fields | lists))
        if index["format"] != _FORMAT:
            raise ValueError(f"format {index['format']}, this code reads {_FORMAT}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not an index of shards ({error}): encode again") from error
    return index


def _check_same_source(folder: Path, old: ShardManifest, new: ShardManifest) -> None:
    for field, value in asdict(old).items():
        wanted = getattr(new, field)
        if field != "command" and value != wanted:
            raise ValueError(
                f"{folder} holds shards with {field} {value}, this run would add {wanted}: "
                "choose another folder or delete this one"
            )
