"""Encoded shards: documents whose pictures are already codes, in a folder of safetensors files.

A shard holds its pictures' codes, in every schedule of the folder, if asked for also the
``latents (N, C, h, w)`` they come from, and its documents as JSON lines; ``index.json`` says what
the folder holds and which image tokenizer made it. Training reads the files as memory maps.

Shapes: N pictures of a shard, h w the code grid, n side of a scale's grid, C latent channels.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimm.data.mixture import read_mixture
from unimm.data.shard_index import (
    INDEX,
    ShardEntry,
    ShardManifest,
    Totals,
    check_same_source,
    read_header,
    read_index,
    replace,
    shard_name,
    write_index,
)
from unimm.document import ImageTokens
from unimm.tokenizer.schedules import SINGLE

_LATENTS = "latents"


class ShardWriter:
    """Writes shards one by one; what is whole already is kept, so a broken run is just repeated.

    Every shard describes itself, so several processes may write one folder; ``finish`` then lists
    the shards in the index.

    Args:
        folder: made when missing.
        manifest: what the shards share.

    Raises:
        ValueError: the folder holds shards of another tokenizer, source, split, seed or size.
    """

    def __init__(self, folder: str | Path, *, manifest: ShardManifest) -> None:
        self.folder = Path(folder)
        self.manifest = manifest
        self._entries: dict[str, ShardEntry] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        if (self.folder / INDEX).is_file():
            old, entries = read_index(self.folder)
            check_same_source(self.folder, old, manifest)
            self._entries = {entry.file: entry for entry in entries}

    def has(self, number: int, *, num_read: int | None = None) -> bool:
        """Whether this shard is there, whole.

        Args:
            number: of the shard.
            num_read: documents that it must cover, if a source may have grown.

        Raises:
            ValueError: it is there, but of another source.
        """
        entry = self._entry(number)
        return entry is not None and num_read in (None, entry.num_read)

    def write(
        self,
        number: int,
        *,
        documents: bytes,
        num_documents: int,
        images: Mapping[str, ImageTokens],
        skipped: Mapping[str, int] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> None:
        """Write one shard, atomically.

        Args:
            number: of the shard, from 0.
            documents: JSON lines, one a document: ``index, kind, is_open, parts, truth``; a picture
                part is ``{"image": k, "is_drawn": bool}`` with k its row of ``images``.
            num_documents: count of lines.
            images: schedule -> all pictures of the shard, stacked; all hold the same ``latents`` if
                the manifest says so.
            skipped: cause -> documents of the shard that were left out.
            dropped: cause -> pictures that were left out of its documents.
        """
        assert tuple(images) == self.manifest.schedules, (images.keys(), self.manifest.schedules)
        path = self.folder / shard_name(number)
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
        entry = ShardEntry(
            file=path.name,
            num_documents=num_documents,
            num_images=num_images,
            skipped=skipped or {},
            dropped=dropped or {},
        )
        temporary = path.with_suffix(".partial")
        save_file(tensors, temporary, metadata=entry.to_metadata(self.manifest))
        replace(temporary, path)

    def finish(self, num_shards: int) -> list[int]:
        """List the shards in the index, if all are there.

        Args:
            num_shards: of all processes that write the folder.

        Returns:
            Numbers of shards that are still missing; the process that ends last sees none.
        """
        entries = [self._entry(number) for number in range(num_shards)]
        missing = [number for number, entry in enumerate(entries) if entry is None]
        if not missing:
            write_index(self.folder, self.manifest, [entry for entry in entries if entry])
        return missing

    def _entry(self, number: int) -> ShardEntry | None:
        """What a whole shard holds, by its own header; by the index if it is an older one."""
        path = self.folder / shard_name(number)
        found = read_header(path)
        if found:
            check_same_source(self.folder, found[0], self.manifest)
            return found[1]
        known = self._entries.get(path.name)
        is_whole = known is not None and path.is_file() and path.stat().st_size == known.bytes
        return known if is_whole else None


class ShardFolder:
    """Reads a folder of shards, or a mixture of folders: documents in order, codes by shard.

    Args:
        folder: what ``ShardWriter`` wrote, or a folder with a ``mixture.json`` of such.
        tokenizer_hash: of the image tokenizer that the run uses; None does not ask.

    Attributes:
        manifest: of the folder, or of the first of a mixture.
        weights: of the sources of the mixture; a single one for a plain folder.
        sources: number of its source for every shard.
        totals: counts of everything.
        fingerprint: another one means other documents or weights: another stream of training.

    Raises:
        ValueError: no folder, a missing or truncated shard, another tokenizer, or codes that do not
            fit the codebook. The message names the file and the remedy.
    """

    def __init__(self, folder: str | Path, *, tokenizer_hash: str | None = None) -> None:
        self.folder = Path(folder)
        self.images: list[dict[str, ImageTokens]] = []
        self._documents: list[bytes] = []
        self.sources: list[int] = []
        members = read_mixture(self.folder)
        self.weights = tuple(members.values())
        entries: list[ShardEntry] = []
        for number, member in enumerate(members):
            manifest, found = read_index(member)
            self.manifest: ShardManifest = manifest if number == 0 else self.manifest
            self._check_manifest(member, manifest, tokenizer_hash)
            for entry in found:
                images, documents = self._open(member, entry)
                self.images.append(images)
                self._documents.append(documents)
                self.sources.append(number)
            entries += found
        self.totals = Totals.of(entries)
        content = json.dumps([self.weights, self.sources, [asdict(entry) for entry in entries]])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.num_documents, self.num_images = self.totals.documents, self.totals.pictures
        if self.num_documents == 0:
            raise ValueError(f"{self.folder} holds no documents; encode some first")

    def documents(self, limit: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give documents with the number of their shard, in order.

        Args:
            limit: give this many at most, as many of each source of a mixture.
        """
        left = [-(-limit // len(self.weights)) if limit else -1] * len(self.weights)
        for shard, lines in enumerate(self._documents):
            source = self.sources[shard]
            for line in lines.splitlines():
                if left[source] == 0:
                    break
                if line:
                    left[source] -= 1
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

    def _check_manifest(
        self, folder: Path, found: ShardManifest, tokenizer_hash: str | None
    ) -> None:
        if tokenizer_hash is not None and tokenizer_hash != found.tokenizer_hash:
            raise ValueError(
                f"the shards in {folder} were encoded by image tokenizer {found.tokenizer_hash}, "
                f"but this run uses {tokenizer_hash}: encode the documents again "
                "(tokenizers/encode_shards.py), or use that tokenizer"
            )
        for name in ("tokenizer_hash", "grid_size", "schedules", "latent_dim"):
            first, own = getattr(self.manifest, name), getattr(found, name)
            if own != first:
                raise ValueError(
                    f"the mixture in {self.folder} holds shards with {name} {first} and, in "
                    f"{folder}, with {own}: encode all with one image tokenizer and one size"
                )

    def _open(self, folder: Path, entry: ShardEntry) -> tuple[dict[str, ImageTokens], bytes]:
        path = folder / entry.file
        remedy = "encode it again by running the command that made the folder once more"
        if not path.is_file():
            raise ValueError(f"shard {path} is missing, though {INDEX} lists it: {remedy}")
        size = path.stat().st_size
        if size != entry.bytes:
            raise ValueError(f"shard {path} has {size} bytes of {entry.bytes}: {remedy}")
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
