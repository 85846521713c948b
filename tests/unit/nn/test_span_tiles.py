"""Tiles that attention's kernels go through, against the dense rule pair by pair."""

from dataclasses import replace

import pytest
import torch
from helpers import packed, random_story, tiny_objective
from random_rows import random_rows
from torch import Tensor
from torch.nn import functional

from unimm.document import attention_rule, visible_spans
from unimm.nn.attention import batch_visibility, choose_backend, gpu_backend
from unimm.nn.span_attention import TILES, cut_spans, tiles_for
from unimm.nn.span_tiles import KeyLists, Tile, find_key_lists, find_query_ranges
from unimm.objectives.next_token import NextTokenConfig

TILE_SIZES = [Tile(queries=16, keys=16), Tile(queries=32, keys=8), Tile(queries=8, keys=32)]


def rows_of(kind: str):
    """A batch whose rows no tile divides."""
    if kind in ("causal", "blocks"):
        return random_rows(150, is_causal=kind == "causal")
    if kind == "long":
        return random_rows(150, longest=(150, 30, 30), seed=1)
    stories = [[random_story(0), random_story(1)], [random_story(2, num_pages=3)]]
    return packed(tiny_objective(kind), stories, row_length=190)


KINDS = ["causal", "blocks", "long", "next_token", "next_scale", "masked", "transfusion"]


def assert_lists_hold(rule: Tensor, lists: KeyLists, tile: Tile) -> tuple[int, int]:
    """Every visible pair is in a listed tile, and tiles that need no mask are visible whole.

    Returns:
        How many tiles are listed, and how many of them need no mask.
    """
    num_rows = len(rule)
    # The kernels read nothing behind the row's end, nor do they store it.
    rule = functional.pad(rule, (0, tile.keys))
    found = torch.zeros_like(rule)
    totals = [0, 0]
    for row in range(num_rows):
        for number, (first, num_full, num_seen) in enumerate(lists.ranges[row].tolist()):
            starts = [first + i * tile.keys for i in range(num_seen)]
            if lists.starts.numel():
                starts = lists.starts[row, number, :num_seen].tolist()
            queries = slice(number * tile.queries, (number + 1) * tile.queries)
            assert len(set(starts)) == num_seen >= num_full
            for i, start in enumerate(starts):
                keys = slice(start, start + tile.keys)
                assert not found[row, queries, keys].any(), "a key is counted twice"
                found[row, queries, keys] = True
                assert i >= num_full or rule[row, queries, keys].all(), "a mask is needed"
            totals[0] += num_seen
            totals[1] += num_full
    assert not (rule & ~found).any(), "a visible pair is in no tile"
    return totals[0], totals[1]


def assert_ranges_hold(rule: Tensor, ranges: Tensor, tile: Tile) -> tuple[int, int]:
    """The same for the queries that see a tile of keys."""
    num_rows, length, _ = rule.shape
    found = torch.zeros_like(rule)
    totals = [0, 0]
    for row in range(num_rows):
        for number, (last, num_full, num_seen) in enumerate(ranges[row].tolist()):
            keys = slice(number * tile.keys, (number + 1) * tile.keys)
            assert num_seen >= num_full and last <= length
            for i in range(num_seen):
                start = last - (i + 1) * tile.queries
                queries = slice(max(start, 0), start + tile.queries)
                found[row, queries, keys] = True
                is_whole = start >= 0 and rule[row, queries, keys].all()
                assert i >= num_full or is_whole, "a mask is needed"
            totals[0] += num_seen
            totals[1] += num_full
    assert not (rule & ~found).any(), "a visible pair is in no tile"
    return totals[0], totals[1]


@pytest.mark.parametrize("kind", KINDS)
def test_each_key_is_seen_by_one_span_of_queries(kind):
    batch = rows_of(kind)
    first, until = visible_spans(batch).of_keys()
    queries = torch.arange(first.shape[1])[:, None]
    found = (queries >= first[:, None]) & (queries < until[:, None])
    assert torch.equal(found, attention_rule(batch))


@pytest.mark.parametrize("tile", TILE_SIZES, ids=lambda t: f"{t.queries}-{t.keys}")
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_hold_every_visible_pair(kind, tile):
    batch = rows_of(kind)
    rule, spans = attention_rule(batch), visible_spans(batch)
    # As lists a causal batch is a case like others.
    for is_causal in {False, batch.is_causal}:
        lists = find_key_lists(spans, tile, is_causal=is_causal)
        assert_lists_hold(rule, lists, tile)
    assert_ranges_hold(rule, find_query_ranges(*spans.of_keys(), tile), tile)


def test_what_nobody_sees_is_left_out_and_what_all_see_needs_no_mask():
    tile = Tile(queries=16, keys=16)
    batch = random_rows(600, longest=(600, 60, 60), seed=3)
    rule, spans = attention_rule(batch), visible_spans(batch)
    listed, full = assert_lists_hold(rule, find_key_lists(spans, tile, is_causal=False), tile)
    cut = functional.pad(rule, (0, 8, 0, 8)).view(2, 38, 16, 38, 16)
    needed, whole = (
        int(x.sum()) for x in (cut.any(4).any(2), cut.view(-1, 38, 16, 38, 16).all(4).all(2))
    )
    # Tiles start with the document here and at multiples of 16 there: about as many.
    assert needed * 0.8 < listed < needed * 1.2
    assert full > whole * 0.7
    listed, full = assert_ranges_hold(rule, find_query_ranges(*spans.of_keys(), tile), tile)
    assert listed < needed * 1.2 and full > 0


@pytest.mark.parametrize("column", [0, 1, 2])
def test_a_wrong_range_would_be_noticed(column):
    tile = Tile(queries=16, keys=16)
    batch = random_rows(150, is_causal=True)
    rule, spans = attention_rule(batch), visible_spans(batch)
    change = torch.zeros(3, dtype=torch.int32)
    change[column] = 1 if column < 2 else -1  # later, more without a mask, fewer tiles
    lists = find_key_lists(spans, tile, is_causal=True)
    with pytest.raises(AssertionError):
        assert_lists_hold(rule, replace(lists, ranges=lists.ranges + change), tile)
    change[0] *= -1
    with pytest.raises(AssertionError):
        ranges = find_query_ranges(*spans.of_keys(), tile) + change
        assert_ranges_hold(rule, ranges, tile)


@pytest.mark.parametrize("width", [16, 64, 80, 128])
def test_tiles_are_cut_for_the_width_of_heads(width):
    batch = packed(NextTokenConfig(), [[random_story(0)]])
    tiles = batch_visibility(batch, "spans", head_width=width).spans
    assert tiles.width == min(w for w in TILES if w >= width)
    rule, cut = attention_rule(batch), tiles_for(tiles.width, is_causal=True)
    assert_lists_hold(rule, tiles.forward, cut.forward)
    assert_lists_hold(rule, tiles.query_gradient, cut.query_gradient)
    assert_ranges_hold(rule, tiles.query_ranges, cut.key_gradient)


def test_heads_too_wide_are_refused():
    spans = visible_spans(packed(NextTokenConfig(), [[random_story(0)]]))
    with pytest.raises(ValueError, match="width 320 .* backend 'flex'"):
        cut_spans(spans, head_width=320, is_causal=True)


@pytest.mark.parametrize("kind", ["next_token", "masked"])
def test_a_gpu_takes_flex_only_where_our_kernels_do_not_run(kind):
    batch, expected = rows_of(kind), "varlen" if kind == "next_token" else "flex"
    assert gpu_backend(batch, is_half=True, head_width=64) == "spans"
    assert gpu_backend(batch, is_half=True, head_width=128) == expected  # not measured
    assert gpu_backend(batch, is_half=False, head_width=64) == "flex"
    assert gpu_backend(batch, is_half=True, head_width=64, has_triton=False) == expected
    assert choose_backend(batch, torch.bfloat16) != "spans"  # not on a CPU
