"""The cache of a batch and its recorded steps, kept from one call to the next.

Recording a step takes longer than running it some times over: a call that asks for the same shapes
as the one before finds the recordings, and the memory that they write to, as it left them.
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unimm.model import UniMM
from unimm.nn.fused_chain import run_block
from unimm.nn.fused_layers import can_fuse, run_fused
from unimm.nn.kv_cache import CacheView, KVCache
from unimm.nn.recorded import Recorder
from unimm.nn.transformer import Backbone
from unimm.objectives.base import Chain

BUCKET = 256
"""Cache lengths are rounded up to this many positions: one graph serves all steps of a bucket."""


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
        kind = self._kind(rows, x.shape[1], is_causal=is_causal)
        step, lengths = partial(self._step, kind, rows), self.cache.lengths_of(rows)
        if not kind.is_run:
            return step(x, positions, lengths)
        return self._recorder.run(kind, step, x, positions, lengths)

    def run_chain(
        self, rows: list[int], chain: Chain, positions: Tensor, *, on_block: Callable[[], None]
    ) -> Tensor:
        """Run a chain's blocks on rows, which keep them.

        Recorded, some blocks are one launch: what they read and where they write, the graph itself
        moves on. A chain that passes the end of a bucket goes on with another recording.

        Args:
            rows: of the cache; only neighbouring ones are recorded.
            chain: for ``B`` documents; ``R`` is ``G B``.
            positions: of all blocks, ``(R, n, 3)``.
            on_block: told of every block.

        Returns:
            Hidden state of the last block, ``(R, 1, D)``.
        """
        last = chain.last.clone()
        at = torch.zeros(1, dtype=torch.int64, device=last.device)
        rest = positions.shape[1]
        while rest:
            kind = self._kind(rows, 1, is_causal=True)
            count = min(rest, kind.longest - self.cache.reach(rows, 1) + 1)
            link = partial(self._link, kind, rows, chain)
            state = (last, at, self.cache.lengths_of(rows), positions, *chain.state)
            if kind.is_run:
                self._recorder.repeat((kind, chain.key), link, count, *state, after=on_block)
            else:
                link(*state)
                on_block()
            self.cache.advance(rows, [count] * len(rows))
            rest -= count
        return last[:, None]

    def _link(
        self,
        kind: "_Kind",
        rows: list[int],
        chain: Chain,
        last: Tensor,
        at: Tensor,
        lengths: Tensor,
        positions: Tensor,
        *state: Tensor,
    ) -> None:
        """One block of a chain; moves its tensors on to the next."""
        drawn = chain.follow(last, at, *state)  # (B,)
        if kind.is_run and isinstance(chain.embed, nn.Embedding) and can_fuse(self.backbone, last):
            view, table = self._view(kind, rows, lengths), chain.embed.weight
            run_block(self.backbone, drawn, table, last=last, at=at, positions=positions, view=view)
            return
        x = chain.embed(drawn)[:, None].repeat(len(rows) // len(drawn), 1, 1)  # (R, 1, D)
        hidden = self._step(kind, rows, x, positions.index_select(1, at), lengths)
        last.copy_(hidden[:, 0])
        at.add_(1)
        lengths.add_(1)

    def _kind(self, rows: list[int], num_new: int, *, is_causal: bool) -> "_Kind":
        reach = self.cache.reach(rows, num_new)
        # A step that sees all of equally long rows needs no mask, but serves this length only.
        is_full = self.cache.is_full(rows, is_causal=is_causal)
        is_run = rows[-1] - rows[0] == len(rows) - 1
        rounded = min(-(-reach // BUCKET) * BUCKET, self.cache.max_length)
        longest = reach if is_full or not is_run else rounded
        return _Kind(rows[0], num_new, longest, is_causal, is_full, is_run)

    def _step(
        self, kind: "_Kind", rows: list[int], x: Tensor, positions: Tensor, lengths: Tensor
    ) -> Tensor:
        view = self._view(kind, rows, lengths)
        if kind.is_run and can_fuse(self.backbone, x):
            return run_fused(self.backbone, x, positions, view)
        return self.backbone(x, positions, cache=view)

    def _view(self, kind: "_Kind", rows: list[int], lengths: Tensor) -> CacheView:
        return CacheView(
            self.cache,
            rows,
            lengths,
            num_new=kind.num_new,
            longest=kind.longest,
            is_causal=kind.is_causal,
            is_full=kind.is_full,
        )


class _Kind(NamedTuple):
    """All that makes a step another function, beside the shapes of its tensors."""

    first_row: int
    num_new: int
    longest: int
    is_causal: bool
    is_full: bool
    is_run: bool  # the rows are neighbours


class _Shape(NamedTuple):
    """What a kept cache cannot change."""

    num_rows: int
    max_length: int
    dtype: torch.dtype
    is_inference: bool
    weights: tuple[int, ...]  # where they lie
    is_trained: bool


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
    parameters = _parameters_of(model)  # chains read the objective's, too
    shape = _Shape(
        num_rows,
        -(-capacity // BUCKET) * BUCKET if weight.is_cuda else capacity,
        weight.dtype,
        torch.is_inference_mode_enabled(),  # its tensors cannot be written to elsewhere
        tuple(x.data_ptr() for x in parameters),
        any(x.requires_grad for x in parameters),
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


def _parameters_of(module: nn.Module) -> list[nn.Parameter]:
    """As ``module.parameters()``, which takes a millisecond for some hundred layers."""
    modules: list[nn.Module | None] = [module]
    found: list[nn.Parameter | None] = []
    for inner in modules:
        if inner is not None:
            found += inner._parameters.values()  # pyright: ignore[reportPrivateUsage]
            modules += inner._modules.values()  # pyright: ignore[reportPrivateUsage]
    return [x for x in found if x is not None]


def keep_workspace(model: UniMM, workspace: Workspace) -> None:
    """Keep a cache for the model's next call, where that pays.

    A model in training needs its memory back at once.
    """
    if not workspace.shape.is_trained and _is_kept(workspace.cache):
        _kept[model] = workspace


def _is_kept(cache: KVCache) -> bool:
    """Nothing is recorded on a CPU; and as much again must stay free for other things."""
    device = cache.keys.device
    if device.type != "cuda":
        return False
    # What PyTorch holds without using it is free, too.
    stats = torch.cuda.memory_stats(device)
    held = stats["reserved_bytes.all.current"] - stats["allocated_bytes.all.current"]
    free = torch.cuda.mem_get_info(device)[0] + held
    return cache.keys.nbytes + cache.values.nbytes <= free
