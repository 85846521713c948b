"""The cache of a batch and its recorded steps, kept from one call to the next.

Recording a step takes longer than running it some times over: a call that asks for the same shapes
as the one before finds the recordings, and the memory that they write to, as it left them.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unimm.model import UniMM
from unimm.nn.fused_chain import run_block
from unimm.nn.fused_layers import LONGEST, can_fuse, run_fused
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
        moves on. A chain that passes the end of a bucket goes on with another recording, unless its
        attention reads each row as far as that is filled.

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
            kind = self._chain_kind(rows, last, rest)
            link = partial(self._link, kind, rows, chain)
            state = (last, at, self.cache.lengths_of(rows), positions, *chain.state)
            if kind.is_run:
                count = min(rest, kind.longest - self.cache.reach(rows, 1) + 1)
                self._recorder.repeat((kind, chain.key), link, count, *state, after=on_block)
            else:
                count = 1
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

    def _chain_kind(self, rows: list[int], last: Tensor, num_blocks: int) -> "_Kind":
        """Of a chain's next blocks, all of them where attention does not mind how far rows go."""
        kind, end = self._kind(rows, 1, is_causal=True), self.cache.reach(rows, num_blocks)
        if kind.is_run and end <= LONGEST and can_fuse(self.backbone, last):
            return kind._replace(longest=self._rounded(end))
        return kind

    def _rounded(self, reach: int) -> int:
        return min(-(-reach // BUCKET) * BUCKET, self.cache.max_length)

    def _kind(self, rows: list[int], num_new: int, *, is_causal: bool) -> "_Kind":
        reach = self.cache.reach(rows, num_new)
        # A step that sees all of equally long rows needs no mask, but serves this length only.
        is_full = self.cache.is_full(rows, is_causal=is_causal)
        is_run = rows[-1] - rows[0] == len(rows) - 1
        longest = reach if is_full or not is_run else self._rounded(reach)
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


class _Weights:
    """The parameters of a model, and where they lay when this was made.

    A walk through hundreds of modules takes the host as long as a step of theirs takes a GPU. So
    their tables are found once, and later asked for all that they hold in one go: a module that
    took another's place shows in the table that holds it.
    """

    def __init__(self, model: nn.Module) -> None:
        modules, self._tables = list(model.modules()), list[dict[str, Any]]()
        for x in modules:
            self._tables += [x._modules, x._parameters]  # pyright: ignore[reportPrivateUsage]
        # Held, so that no other gets the number of one that is gone; the model would hold itself.
        self._modules = modules[1:]
        held = gc.get_referents(*self._tables)
        self._places = [i for i, x in enumerate(held) if isinstance(x, Tensor)]
        self._numbers = list(map(id, held))
        self._addresses = list(map(Tensor.data_ptr, self._parameters(held)))

    def are_in_place(self) -> bool:
        """Whether the model has the same parameters where they lay."""
        held = gc.get_referents(*self._tables)
        if list(map(id, held)) != self._numbers:
            return False
        return list(map(Tensor.data_ptr, self._parameters(held))) == self._addresses

    def are_trained(self) -> bool:
        """Whether any of them is to get a gradient."""
        held = gc.get_referents(*self._tables)
        return any(x.requires_grad for x in held if isinstance(x, Tensor))

    def _parameters(self, held: list[Any]) -> Iterator[nn.Parameter]:
        return map(held.__getitem__, self._places)


class Workspace(NamedTuple):
    """A cache and the recorded steps that read and write it."""

    shape: _Shape
    weights: _Weights
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
    )
    kept = _kept.pop(model, None)
    if kept is not None and kept.shape == shape and kept.weights.are_in_place():
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
    # All of the model's: chains read the objective's, too.
    return Workspace(shape, _Weights(model), cache, StepGraphs(model.backbone, cache))


def can_keep(workspace: Workspace) -> bool:
    """Whether a cache may stay for the model's next call.

    A model in training needs its memory back at once. To find out takes the host as long as to
    launch some steps: best done while the device is busy.
    """
    return not workspace.weights.are_trained() and _is_kept(workspace.cache)


def keep_workspace(model: UniMM, workspace: Workspace) -> None:
    """Keep a cache for the model's next call."""
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
