"""Steps of the trunk as CUDA graphs: one launch instead of one a kernel.

A decoding step of a small trunk is some five hundred kernels of a few microseconds each: the
processor's launches take longer than the work. Legend as in ``engine.py``.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from unimm.nn.kv_cache import CacheView, KVCache
from unimm.nn.transformer import Backbone

BUCKET = 256
"""Cache lengths are rounded up to this many positions: one graph serves all steps of a bucket."""


class _Key(NamedTuple):
    """What a recorded step cannot change."""

    first_row: int
    num_rows: int
    num_new: int
    longest: int
    is_causal: bool


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    x: Tensor
    positions: Tensor
    lengths: Tensor
    hidden: Tensor


class StepGraphs:
    """Records a step when its shape comes for the second time, and repeats it from then on.

    A shape that comes once costs nothing; the eager step before a recording also warms its kernels
    up. The cache's memory must stay where it is: after ``KVCache.select`` make a new one.

    Args:
        backbone: in evaluation mode, on a CUDA device.
        cache: that its steps read and write.
    """

    def __init__(self, backbone: Backbone, cache: KVCache) -> None:
        self.backbone, self.cache = backbone, cache
        self._seen: set[_Key] = set()
        self._graphs: dict[_Key, _Graph] = {}
        self._pool = torch.cuda.graph_pool_handle()

    def run(self, rows: list[int], x: Tensor, positions: Tensor, *, is_causal: bool) -> Tensor:
        """Run the trunk on new positions of neighbouring rows.

        Args:
            rows: of the cache, one after the other.
            x: ``(R, n, D)``.
            positions: ``(R, n, 3)``.
            is_causal: whether the new positions see each other causally or all.

        Returns:
            ``(R, n, D)``.
        """
        num_new = x.shape[1]
        view = self.cache.view(rows, num_new, is_causal=is_causal)
        longest = min(-(-view.longest // BUCKET) * BUCKET, self.cache.max_length)
        key = _Key(rows[0], len(rows), num_new, longest, is_causal)
        if key not in self._seen:
            self._seen.add(key)
            return self.backbone(x, positions, cache=view)
        if key not in self._graphs:
            self._graphs[key] = self._record(key, rows, x, positions)
        step = self._graphs[key]
        step.x.copy_(x)
        step.positions.copy_(positions)
        step.lengths.copy_(self.cache.lengths_of(rows))
        step.graph.replay()
        return step.hidden.clone()  # the next step of this shape writes over it

    def _record(self, key: _Key, rows: list[int], x: Tensor, positions: Tensor) -> _Graph:
        x, positions, lengths = x.clone(), positions.clone(), self.cache.lengths_of(rows)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            view = CacheView(
                self.cache,
                rows,
                lengths,
                num_new=key.num_new,
                longest=key.longest,
                is_causal=key.is_causal,
            )
            hidden = self.backbone(x, positions, cache=view)
        return _Graph(graph, x, positions, lengths, hidden)
