"""Storyworld as an endless stream of pictures: sampled and rendered by worker processes.

A ring of pictures lies on the training device; each is read a few times before a fresh one takes
its place, so that few processors keep a fast device busy.

Shapes: B batch, S side of the square pictures, P pictures of the ring.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from unimm.data.images import PictureBatch
from unimm.data.world.render import Renderer, pack_scenes
from unimm.data.world.scene import Scene
from unimm.data.world.splits import Split
from unimm.data.world.tasks import ScenePart, document_at

CHUNK = 64  # pictures that a worker hands over at once

Chunk = tuple[NDArray[np.uint8], NDArray[np.bool_]]


class WorldChunks(Dataset[Chunk]):
    """Chunks of rendered scenes of the world's documents; chunk i is the same for any worker.

    Args:
        split: whose combinations are shown.
        seed: of the world.
        image_size: side S in pixels.
        num_chunks: how many there are.
    """

    def __init__(
        self, split: Split, *, seed: int, image_size: int, num_chunks: int = 1_000_000
    ) -> None:
        self.split, self.seed = split, seed
        self.image_size, self.num_chunks = image_size, num_chunks
        self._renderer: Renderer | None = None  # made in the worker: it holds an atlas of sprites

    def __len__(self) -> int:
        """Count of chunks."""
        return self.num_chunks

    def __getitem__(self, index: int) -> Chunk:
        """Sample and draw chunk ``index``: ``(CHUNK, 3, S, S)`` uint8, ``(CHUNK, S, S)`` bool."""
        if self._renderer is None:
            self._renderer = Renderer()
        scenes: list[Scene] = []
        document = index * CHUNK  # each document shows at least one scene
        while len(scenes) < CHUNK:
            parts = document_at(self.seed, document, split=self.split).parts
            scenes += [part.scene for part in parts if isinstance(part, ScenePart)]
            document += 1
        drawn = self._renderer.render_packed(pack_scenes(scenes[:CHUNK]), size=self.image_size)
        assert drawn.figure_mask is not None
        return drawn.rgb.numpy(), drawn.figure_mask.numpy()


class WorldBatches(Iterator[PictureBatch]):
    """Endless batches from a ring of rendered pictures.

    Args:
        chunks: where fresh pictures come from.
        batch_size: B.
        pool_size: P, pictures of the ring; ``3 S S`` bytes and a mask of ``S S`` each.
        reads_per_picture: how often a picture is read before it is replaced, on average.
        num_workers: processes that sample and render; 0 does it here.
        device: where the ring lies.
        seed: of the order in which the ring is read.
        first_chunk: where to begin, so that a resumed run goes on with fresh pictures.
    """

    def __init__(
        self,
        chunks: WorldChunks,
        *,
        batch_size: int,
        pool_size: int,
        reads_per_picture: float,
        num_workers: int,
        device: torch.device | str,
        seed: int,
        first_chunk: int = 0,
    ) -> None:
        side = chunks.image_size
        self.batch_size = batch_size
        self.pixels = torch.empty(pool_size, 3, side, side, dtype=torch.uint8, device=device)
        self.mask = torch.empty(pool_size, side, side, dtype=torch.bool, device=device)
        self.num_filled, self._next_row = 0, 0
        self._fresh_per_batch = batch_size / reads_per_picture
        self._owed = float(min(pool_size, 8 * batch_size))  # pictures to draw before the next batch
        self._generator = torch.Generator().manual_seed(seed)
        # Arrays travel through pipes: shared memory is tiny in many containers.
        loader = DataLoader(
            chunks,
            batch_size=None,
            sampler=range(first_chunk, len(chunks)),
            num_workers=num_workers,
            collate_fn=_as_is,
        )
        self._chunks: Iterator[Chunk] = iter(loader)

    def __next__(self) -> PictureBatch:
        """Give the next batch, after fresh pictures have come in."""
        while self._owed > 0:
            self._owed -= self._take(next(self._chunks))
        self._owed += self._fresh_per_batch
        rows = torch.randint(self.num_filled, (self.batch_size,), generator=self._generator)
        rows = rows.to(self.pixels.device)
        return PictureBatch(self.pixels[rows], self.mask[rows])

    def _take(self, chunk: Chunk) -> int:
        pixels, mask = (torch.from_numpy(array) for array in chunk)
        size = len(self.pixels)
        rows = (torch.arange(len(pixels)) + self._next_row) % size
        self._next_row = (self._next_row + len(pixels)) % size
        self.num_filled = min(self.num_filled + len(pixels), size)
        device = self.pixels.device
        rows = rows.to(device)
        self.pixels[rows], self.mask[rows] = pixels.to(device), mask.to(device)
        return len(pixels)


def _as_is(chunk: Any) -> Any:
    return chunk


def render_world(split: Split, *, num_pictures: int, image_size: int, seed: int) -> PictureBatch:
    """Render the first pictures of a split, ``(num_pictures, 3, S, S)`` with masks, on the CPU."""
    num_chunks = -(-num_pictures // CHUNK)
    chunks = WorldChunks(split, seed=seed, image_size=image_size, num_chunks=num_chunks)
    pixels, masks = zip(*(chunks[index] for index in range(num_chunks)), strict=True)
    return PictureBatch(
        torch.from_numpy(np.concatenate(pixels)[:num_pictures]),
        torch.from_numpy(np.concatenate(masks)[:num_pictures]),
    )
