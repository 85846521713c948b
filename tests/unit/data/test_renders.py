"""Storyworld's pictures as a stream."""

import numpy as np
import torch

from unimm.data.renders import CHUNK, WorldBatches, WorldChunks, render_world
from unimm.data.world.splits import Split


def open_stream(num_workers: int) -> WorldBatches:
    return WorldBatches(
        WorldChunks(Split.TRAIN, seed=0, image_size=16),
        batch_size=4,
        pool_size=CHUNK,
        reads_per_picture=1.0,
        num_workers=num_workers,
        device="cpu",
        seed=0,
    )


def test_a_chunk_is_the_same_for_any_worker_and_has_figures() -> None:
    a, b = (WorldChunks(Split.TRAIN, seed=0, image_size=16)[3] for _ in range(2))
    assert a[0].shape == (CHUNK, 3, 16, 16) and a[0].dtype == np.uint8
    assert a[1].shape == (CHUNK, 16, 16) and 0.02 < a[1].mean() < 0.9
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    other = WorldChunks(Split.TRAIN, seed=1, image_size=16)[3]
    assert not np.array_equal(a[0], other[0])


def test_workers_do_not_change_the_stream_and_fresh_pictures_come_in() -> None:
    here, there = open_stream(0), open_stream(1)
    first = here.pixels.clone()
    for step in range(18):
        a, b = next(here), next(there)
        assert torch.equal(a.pixels, b.pixels)
        assert a.mask is not None and b.mask is not None and torch.equal(a.mask, b.mask)
        if step == 0:
            first = here.pixels.clone()
    assert not torch.equal(first, here.pixels)  # each picture is read about once


def test_held_out_pictures_have_masks() -> None:
    batch = render_world(Split.HELDOUT, num_pictures=5, image_size=16, seed=0)
    assert batch.pixels.shape == (5, 3, 16, 16) and batch.mask is not None
    assert batch.mask.flatten(1).any(dim=1).all()
