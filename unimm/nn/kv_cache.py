"""The static key-value cache: one row a guidance branch of a document, each with its own length."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from unimm.nn.attention import Visibility
from unimm.nn.rope import NUM_AXES, apply_rope, rope_cos_sin


class KVCache:
    """Keys and values of all layers, allocated once.

    A row's own length bounds which keys it sees; nothing else masks generation. Lengths live on the
    host, so that choosing a view of the filled part never waits for the device.

    Args:
        depth: layers.
        num_rows: rows ``R``.
        num_kv_heads: ``H_kv``.
        max_length: positions a row can hold.
        head_dim: width of a head.
        dtype: of keys and values.
        device: where they live.
    """

    def __init__(
        self,
        *,
        depth: int,
        num_rows: int,
        num_kv_heads: int,
        max_length: int,
        head_dim: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (depth, num_rows, num_kv_heads, max_length, head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.lengths = [0] * num_rows
        self.is_marked = [False] * num_rows
        self.max_length = max_length

    def view(self, rows: list[int], num_new: int, *, is_causal: bool) -> "CacheView":
        """Prepare a step that appends ``num_new`` positions to some rows.

        Args:
            rows: which rows, in the order of the step's batch.
            num_new: positions of the block.
            is_causal: whether the block's positions see each other causally or all.

        Raises:
            ValueError: if a row would outgrow the cache.
        """
        return CacheView(
            self,
            rows,
            self.lengths_of(rows),
            num_new=num_new,
            longest=self.reach(rows, num_new),
            is_causal=is_causal,
            is_full=self.is_full(rows, is_causal=is_causal),
        )

    def reach(self, rows: list[int], num_new: int) -> int:
        """How far the longest of these rows reaches with ``num_new`` more positions.

        Raises:
            ValueError: if it would outgrow the cache.
        """
        longest = max(self.lengths[row] for row in rows) + num_new
        if longest > self.max_length:
            raise ValueError(
                f"{longest} positions do not fit a cache of {self.max_length}: shorten the prompt, "
                "ask for fewer pictures, or load the model with a larger max_seq_len"
            )
        return longest

    def is_full(self, rows: list[int], *, is_causal: bool) -> bool:
        """Whether new positions of these rows see all that any of them holds."""
        return not is_causal and len({self.lengths[row] for row in rows}) == 1

    def clear(self) -> None:
        """Forget all rows, also those that ``select`` dropped."""
        self.keys.zero_()  # what is no number would spoil even what does not look at it
        self.values.zero_()
        self.lengths = [0] * self.keys.shape[1]
        self.is_marked = [False] * self.keys.shape[1]

    def lengths_of(self, rows: list[int]) -> Tensor:
        """Where rows stand, ``(R,)`` int64 on the cache's device."""
        lengths = torch.tensor([self.lengths[row] for row in rows])
        return lengths.to(self.keys.device, non_blocking=True)

    def advance(self, rows: list[int], counts: list[int]) -> None:
        """Keep the first ``counts[i]`` of the positions just written to ``rows[i]``."""
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count

    def mark(self, rows: list[int]) -> list[int]:
        """Remember where rows stand, until ``rewind`` or ``release``."""
        for row in rows:
            self.is_marked[row] = True
        return [self.lengths[row] for row in rows]

    def release(self, rows: list[int]) -> None:
        """Forget marks; what was written after them stays."""
        for row in rows:
            self.is_marked[row] = False

    def rewind(self, rows: list[int], marks: list[int]) -> None:
        """Forget what was written after the mark."""
        for row, mark in zip(rows, marks, strict=True):
            if mark > self.lengths[row]:
                raise ValueError(f"cannot rewind row {row} of {self.lengths[row]} to {mark}")
            self.lengths[row] = mark
        self.release(rows)

    def evict(self, rows: Sequence[int], kept: Sequence[int]) -> None:
        """Keep only these positions of rows, moved together in this order.

        The memory stays where it is, so that recorded steps stay valid.

        Raises:
            ValueError: while a mark is open: it would point elsewhere.
        """
        marked = [row for row in rows if self.is_marked[row]]
        if marked:
            raise ValueError(f"rows {marked} cannot lose positions while a mark is open: rewind")
        index = torch.tensor(kept, dtype=torch.int64, device=self.keys.device)
        for row in rows:
            for cached in (self.keys, self.values):
                cached[:, row, :, : len(kept)] = cached[:, row, :, index]
            self.lengths[row] = len(kept)

    def shift(self, rows: Sequence[int], steps: Sequence[int], rope_base: float) -> None:
        """Turn the keys of each row's first ``len(steps)`` positions so many positions further.

        Rotations add up, so a key need not be kept unrotated to be moved.
        """
        moved = torch.tensor(steps, device=self.keys.device)[None, :, None]
        rope = rope_cos_sin(moved.expand(-1, -1, NUM_AXES), self.keys.shape[-1], rope_base)
        for row in rows:
            keys = self.keys[:, row, :, : len(steps)]  # (depth, H_kv, n, head_dim)
            keys.copy_(apply_rope(keys, *rope))

    def select(self, rows: list[int]) -> None:
        """Keep only these rows, renumbered in this order: documents that have ended leave.

        The memory stays where it is, so that recorded steps stay valid.
        """
        index = torch.tensor(rows, device=self.keys.device)
        for cached in (self.keys, self.values):
            for layer in cached:  # one after the other: little is copied at once
                layer[: len(rows)] = layer[index]
        self.lengths = [self.lengths[row] for row in rows]
        self.is_marked = [self.is_marked[row] for row in rows]


class CacheView:
    """One step's window on the cache: writes the new keys, reads all that each row may see.

    Args:
        cache: the whole of it.
        rows: which rows, in the order of the step's batch.
        lengths: ``(R,)`` where they stand. Only this tensor says so: a step that was recorded as a
            CUDA graph is repeated at other lengths by writing into it.
        num_new: positions of the block.
        longest: how far any row reaches after the step, or more.
        is_causal: whether the block's positions see each other causally or all.
        is_full: all rows reach exactly ``longest``, and all new positions see all of it: kernels
            without a mask are faster.
    """

    def __init__(
        self,
        cache: KVCache,
        rows: list[int],
        lengths: Tensor,
        *,
        num_new: int,
        longest: int,
        is_causal: bool,
        is_full: bool = False,
    ) -> None:
        self.cache, self.lengths, self.longest = cache, lengths, longest
        self.first_row, self.num_new = rows[0], num_new
        self.is_causal, self.is_full = is_causal, is_full
        # Neighbouring rows, such as all of one guidance branch, are read without a copy.
        is_run = rows == list(range(rows[0], rows[0] + len(rows)))
        self.span = slice(rows[0], rows[0] + len(rows)) if is_run else None
        self._rows = rows

    @cached_property
    def rows(self) -> Tensor:
        """Index of the rows, ``(R,)``."""
        device = self.lengths.device
        if self.span is not None:
            return torch.arange(self.span.start, self.span.stop, device=device)
        return torch.tensor(self._rows).to(device, non_blocking=True)

    @cached_property
    def write_at(self) -> Tensor:
        """Where the new positions go, ``(R, n)``."""
        return self.lengths[:, None] + torch.arange(self.num_new, device=self.lengths.device)

    @cached_property
    def visibility(self) -> Visibility:
        """Who sees whom."""
        if self.is_full:
            return Visibility()
        slots = torch.arange(self.longest, device=self.lengths.device)
        last = self.write_at
        last_visible = last if self.is_causal else last[:, -1:].expand(-1, self.num_new)
        mask = slots[None, None] <= last_visible[:, :, None]  # (R, n, S)
        if mask.is_cuda:  # what the library would make of it in every layer
            bias = torch.zeros(mask.shape, dtype=self.cache.keys.dtype, device=mask.device)
            mask = bias.masked_fill_(~mask, float("-inf"))
        return Visibility(dense=mask[:, None])

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write a layer's new keys and values; return all up to the longest row.

        Args:
            layer: index of the layer.
            key: ``(R, H_kv, n, head_dim)``, already rotated.
            value: the same shape.

        Returns:
            Keys and values ``(R, H_kv, S, head_dim)``.
        """
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        # Advanced indices on dims 0 and 2 put (R, n) first: (R, n, H_kv, head_dim).
        rows = self.rows[:, None]
        keys[rows, :, self.write_at] = key.transpose(1, 2).to(keys.dtype)
        values[rows, :, self.write_at] = value.transpose(1, 2).to(values.dtype)
        return self.seen(layer)

    def seen(self, layer: int) -> tuple[Tensor, Tensor]:
        """A layer's keys and values up to the longest row, ``(R, H_kv, S, head_dim)``."""
        rows = self.rows if self.span is None else self.span
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        return keys[rows, :, : self.longest], values[rows, :, : self.longest]
