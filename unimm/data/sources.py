"""What a source of raw documents is, and the embedded world as one (files: ``files.py``).

A source answers one question: what is in documents i to j? It runs in worker processes, so it holds
plain values only. ``encode.py`` turns its pictures into codes.

Shapes: N pictures of a shard, S side of a picture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
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
        dropped: cause -> pictures that were left out of documents.
        examples: cause -> one place where it was met.
    """

    documents: bytes
    num_documents: int
    num_images: int
    pictures: Any
    skipped: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, str] = field(default_factory=dict)


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
