"""Which tiles of keys a tile of queries sees, and which of queries see a tile of keys.

The kernels of ``span_attention`` go through tiles; what they may leave out is found here, once a
batch. A list begins with tiles that are seen whole, which need no mask. Legend: ``B`` rows, ``L``
row length, ``T`` tiles of a row, ``K`` tiles in the longest list.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from unimm.document import Spans


@dataclass(frozen=True, kw_only=True)
class Tile:
    """How a kernel is cut.

    Attributes:
        queries: in a tile.
        keys: in a tile.
        num_warps: of a program.
        num_stages: tiles on their way from memory at once.
        is_split: tiles that are seen whole take a loop of their own, without a mask.
        max_registers: of a thread, so that more programs fit; 0 leaves it to the compiler.
    """

    queries: int
    keys: int
    num_warps: int = 4
    num_stages: int = 2
    is_split: bool = True
    max_registers: int = 0


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """How each of the three kernels is cut: results, gradients of queries, of keys and values."""

    forward: Tile
    query_gradient: Tile
    key_gradient: Tile


@dataclass(frozen=True, kw_only=True)
class KeyLists:
    """For each tile of queries the tiles of keys that it sees.

    Attributes:
        ranges: ``(B, T, 3)`` int32: the first key, how many tiles are seen whole, how many at all.
        starts: ``(B, T, K)`` int32 first keys of the tiles; ``(0,)`` if they follow each other.
    """

    ranges: Tensor
    starts: Tensor

    @property
    def is_causal(self) -> bool:
        """Whether the batch is causal: nothing is listed then."""
        return self.starts.numel() == 0


def find_key_lists(spans: Spans, tile: Tile, *, is_causal: bool) -> KeyLists:
    """List tiles of keys, counted from where the first query's document starts.

    Args:
        spans: of the batch; no number of a query falls along a row.
        tile: sizes.
        is_causal: everything is context and blocks are single positions, so tiles follow each
            other and those seen whole come first by themselves.
    """
    first, latest = _ends_of_tiles(spans.document_start, tile.queries)  # (B, T) each
    own_first, own_latest = _ends_of_tiles(spans.segment_start, tile.queries)
    soonest, end = _ends_of_tiles(spans.block_end, tile.queries)
    if is_causal:
        num_seen = (end - first + tile.keys - 1) // tile.keys
        # Where a tile of queries holds several documents no key of the first is seen by all.
        num_full = (first == latest) * ((soonest - first) // tile.keys)
        ranges = torch.stack((first, num_full, num_seen.clamp(min=0)), -1)
        return KeyLists(ranges=ranges, starts=ranges.new_empty(0))

    length = spans.block_end.shape[1]
    last = length + tile.keys
    steps = torch.arange(0, last, tile.keys, device=first.device)  # (K + 1,)
    first, latest, own_first, own_latest, soonest, end = (
        x[..., None] for x in (first, latest, own_first, own_latest, soonest, end)
    )
    bounds = first + steps  # (B, T, K + 1)
    starts, ends = bounds[..., :-1], bounds[..., 1:]
    # How many of the keys so far are no contexts, plus one; none behind the row's end is.
    hidden = functional.pad(~spans.is_context, (1, tile.keys), value=True).cumsum(1)

    def hidden_before(keys: Tensor) -> Tensor:
        return hidden.gather(1, keys.clamp(max=last).flatten(1)).view_as(keys)

    at_bounds = hidden_before(bounds)
    is_any_context = at_bounds.diff(dim=-1) < tile.keys
    is_seen = (starts < end) & ((ends > own_first) | is_any_context)
    others = torch.clamp(own_latest, starts, ends)  # from here on all are own
    is_whole = hidden_before(others) == at_bounds[..., :-1]  # up to there all are contexts
    is_full = (starts >= latest) & (ends <= soonest) & is_whole
    order = torch.argsort(is_seen.int() + is_full, dim=-1, descending=True, stable=True)
    counts = torch.stack((is_full, is_seen), -1).sum(-2)  # (B, T, 2)
    ranges = torch.cat((first, counts), -1)
    return KeyLists(ranges=ranges.int(), starts=starts.gather(-1, order).int())


def find_query_ranges(seen_from: Tensor, seen_until: Tensor, tile: Tile) -> Tensor:
    """For each tile of keys the queries that see it; these lists have no gaps.

    Args:
        seen_from: ``(B, L)`` as in ``Spans.of_keys``.
        seen_until: ``(B, L)``.
        tile: sizes.

    Returns:
        ``(B, T, 3)`` int32: one past the last query, from where tiles are counted backwards, how
        many of them see all of these keys, how many any.
    """
    first, latest = _ends_of_tiles(seen_from, tile.keys)
    spare = -seen_until.shape[1] % tile.keys
    if spare:  # one key more often changes nothing
        seen_until = torch.cat((seen_until, seen_until[:, -1:].expand(-1, spare)), 1)
    soonest, end = seen_until.unflatten(1, (-1, tile.keys)).aminmax(dim=-1)
    num_full = (soonest == end) * ((end - latest) // tile.queries)
    num_seen = (end - first + tile.queries - 1) // tile.queries
    return torch.stack((end, num_full.clamp(min=0), num_seen.clamp(min=0)), -1)


def _ends_of_tiles(rising: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The lowest and the highest of each tile, ``(B, T)``, of numbers that do not fall."""
    lasts = rising[:, size - 1 :: size]
    if rising.shape[1] % size:
        lasts = torch.cat((lasts, rising[:, -1:]), 1)
    return rising[:, ::size], lasts
