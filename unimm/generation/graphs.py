"""The cache of a batch and its recorded steps, kept from one call to the next.

Recording a step takes longer than running it some times over: a call that asks for the same shapes
as the one before finds the recordings, and the memory that they write to, as it left them.
"""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from unimm.model import UniMM
from unimm.nn.fused_layers import can_fuse, run_fused
from unimm.nn.kv_cache import CacheView, KVCache
from unimm.nn.recorded import Recorder
from unimm.nn.transformer import Backbone

BUCKET = 256
"""Cache lengths are rounded up to this many positions: one graph serves all steps of a bucket."""
_KEPT_SHARE = 8
"""A cache is kept if it takes no more than one part in this many of the device's memory."""


class StepGraphs:
    """Runs steps of the trunk, recorded where they repeat.

    Args:
        backbone: in evaluation mode.
        cache: that its steps read and write.
    """

    def __init__(self, backbone: Backbone, cache: KVCache) -> None:
        self.backbone, self.cache = backbone, cache
        self._recorder = Recorder()

    def run(self, rows: list[int], x: Tensor, positions: Tensor, *, is_causal: bool) -> Tensor:
        """Run the trunk on new positions of rows.

        Args:
            rows: of the cache; only neighbouring ones are recorded.
            x: ``(R, n, D)``.
            positions: ``(R, n, 3)``.
            is_causal: whether the new positions see each other causally or all.

        Returns:
            ``(R, n, D)``.
        """
        num_new, cache = x.shape[1], self.cache
        reach = cache.reach(rows, num_new)
        # A step that sees all of equally long rows needs no mask, but serves this length only.
        is_full = cache.is_full(rows, is_causal=is_causal)
        is_run = rows[-1] - rows[0] == len(rows) - 1
        rounded = min(-(-reach // BUCKET) * BUCKET, cache.max_length)
        longest = reach if is_full or not is_run else rounded
        is_fused = is_run and can_fuse(self.backbone, x)

        def step(x: Tensor, positions: Tensor, lengths: Tensor) -> Tensor:
            view = CacheView(
                cache,
                rows,
                lengths,
                num_new=num_new,
                longest=longest,
                is_causal=is_causal,
                is_full=is_full,
            )
            if is_fused:
                return run_fused(self.backbone, x, positions, view)
            return self.backbone(x, positions, cache=view)

        lengths = cache.lengths_of(rows)
        if not is_run:
            return step(x, positions, lengths)
        key = (rows[0], longest, is_causal, is_full)
        return self._recorder.run(key, step, x, positions, lengths)


class _Shape(NamedTuple):
    """What a kept cache cannot change."""

    num_rows: int
    max_length: int
    dtype: torch.dtype
    is_inference: bool
    weights: tuple[int, ...]  # where they lie


class Workspace(NamedTuple):
    """A cache and the recorded steps that read and write it."""

    shape: _Shape
    cache: KVCache
    graphs: StepGraphs


_kept: "weakref.WeakKeyDictionary[UniMM, Workspace]" = weakref.WeakKeyDictionary()


def take_workspace(model: UniMM, *, num_rows: int, capacity: int) -> Workspace:
    """Give a cache of empty rows: the kept one, if it is as large.

    Until ``keep_workspace`` it is nobody else's.

    Args:
        model: whose trunk writes it.
        num_rows: rows.
        capacity: positions that a row must hold at least.
    """
    config, weight = model.config.backbone, model.text_embedding.weight
    shape = _Shape(
        num_rows,
        -(-capacity // BUCKET) * BUCKET if weight.is_cuda else capacity,
        weight.dtype,
        torch.is_inference_mode_enabled(),  # its tensors cannot be written to elsewhere
        tuple(x.data_ptr() for x in model.backbone.parameters()),
    )
    kept = _kept.pop(model, None)
    if kept is not None and kept.shape == shape:
        kept.cache.clear()
        return kept
    del kept  # before the new one is allocated
    cache = KVCache(
        depth=config.depth,
        num_rows=num_rows,
        num_kv_heads=config.num_kv_heads,
        max_length=shape.max_length,
        head_dim=config.head_width,
        dtype=weight.dtype,
        device=weight.device,
    )
    return Workspace(shape, cache, StepGraphs(model.backbone, cache))


def keep_workspace(model: UniMM, workspace: Workspace) -> None:
    """Keep a cache for the model's next call, where that pays."""
    if _is_kept(workspace.cache):
        _kept[model] = workspace


def _is_kept(cache: KVCache) -> bool:
    """Nothing is recorded on a CPU; and a very large cache should make room for other things."""
    if not cache.keys.is_cuda:
        return False
    most = torch.cuda.mem_get_info(cache.keys.device)[1] // _KEPT_SHARE
    return cache.keys.nbytes + cache.values.nbytes <= most
