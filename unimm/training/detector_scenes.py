"""Scenes for the detector: sampled by worker processes, rendered on the device.

The judge may see every combination, held-out ones too: it must not be the one that has never seen
a purple bear. Its scenes come from captions of all tasks and from the pages of stories.
"""

import multiprocessing
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

import numpy as np
import torch

from unimm.data.world.captions import sample_caption_scene
from unimm.data.world.render import PackedScenes, Renderer, pack_scenes
from unimm.data.world.scene import Scene, sample_rng
from unimm.data.world.splits import Split
from unimm.data.world.stories import sample_story
from unimm.judges.labels import Labels, scene_indices
from unimm.training.detector import RenderedBatch

_STORY_SHARE = 0.15


class SceneBatch(NamedTuple):
    """Scenes of one batch, ready to be drawn, and their class indices (see ``scene_indices``)."""

    packed: PackedScenes
    attributes: np.ndarray
    background: np.ndarray


class SceneJob(NamedTuple):
    """What a worker samples: batch number ``index`` of a run."""

    seed: int
    index: int
    batch_size: int
    styles: tuple[str, ...]
    shares: tuple[float, ...]


def sample_scenes(
    *, seed: int, start: int, num: int, styles: Sequence[str], shares: Sequence[float]
) -> list[Scene]:
    """Scenes as captions and stories show them, equally often from all splits.

    Args:
        seed: of the world; another one than what is judged was made from.
        start: first sample number; callers leave ``num`` numbers to each other.
        num: how many scenes.
        styles: arts of the captions' scenes; stories are drawn in 3D.
        shares: how often each art is taken; they sum to 1.
    """
    scenes: list[Scene] = []
    bounds = np.cumsum(shares)
    for number in range(num):
        if len(scenes) >= num:
            break
        split = Split.TRAIN if number % 2 else Split.HELDOUT
        rng = sample_rng(seed, int(split), start + number)
        style = styles[min(int(np.searchsorted(bounds, rng.random())), len(styles) - 1)]
        # A story fills four to six pages, so these are nearly half of the scenes.
        if style == "3d" and rng.random() < _STORY_SHARE:
            scenes += [page.scene for page in sample_story(rng, split).pages]
        else:
            scenes.append(sample_caption_scene(rng, split, styles=(style,)).scene)
    return scenes[:num]


def sample_batch(job: SceneJob) -> SceneBatch:
    """Sample and pack one batch; a function of the job alone, so workers never change it."""
    return pack_batch(
        sample_scenes(
            seed=job.seed,
            start=job.index * job.batch_size,
            num=job.batch_size,
            styles=job.styles,
            shares=job.shares,
        )
    )


def pack_batch(scenes: Sequence[Scene]) -> SceneBatch:
    """Pack scenes with their class indices."""
    packed = pack_scenes(scenes)
    return SceneBatch(packed, *scene_indices(scenes, packed.look.shape[1]))


def render_batch(batch: SceneBatch, renderer: Renderer, *, size: int) -> RenderedBatch:
    """Draw a batch at ``size`` pixels and gather its truth on the renderer's device."""
    render = renderer.render_packed(batch.packed, size=size)
    assert render.boxes is not None and render.visibility is not None
    device = render.rgb.device
    labels = Labels(
        boxes=render.boxes.to(device) / size,
        attributes=torch.from_numpy(batch.attributes).to(device),
        visibility=render.visibility.to(device),
        background=torch.from_numpy(batch.background).to(device),
    )
    return RenderedBatch(render.rgb, labels)


def rendered_batches(
    draw: Callable[[SceneBatch], RenderedBatch],
    *,
    seed: int,
    batch_size: int,
    num_batches: int,
    style_shares: dict[str, float],
    num_workers: int,
) -> Generator[RenderedBatch | None, None, None]:
    """New batches as they become ready; None while the workers have none, but never at first.

    Args:
        draw: renders a batch.
        seed: of the scenes; the same seed gives the same batches, in an order that workers change.
        batch_size: pictures a batch.
        num_batches: after which there are no new ones.
        style_shares: art -> share of the scenes.
        num_workers: processes; 0 samples in this one.
    """
    total = sum(style_shares.values())
    shares = tuple(share / total for share in style_shares.values())
    styles = tuple(style_shares)
    jobs = [SceneJob(seed, i, batch_size, styles, shares) for i in range(num_batches)]
    if num_workers == 0:
        yield from (draw(sample_batch(job)) for job in jobs)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with context.Pool(num_workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        results = pool.imap_unordered(sample_batch, jobs)
        yield draw(results.next())
        for _ in range(num_batches - 1):
            while True:
                try:
                    batch = results.next(timeout=0)
                    break
                except multiprocessing.TimeoutError:
                    yield None
            yield draw(batch)
