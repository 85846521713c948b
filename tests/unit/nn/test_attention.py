from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers import SPECIAL, packed, random_story
from torch.nn import functional

from unimm.document import (
    Segment,
    attention_rule,
    image_positions,
    layout_document,
    pack,
    visible_spans,
)
from unimm.nn.attention import (
    Visibility,
    attend,
    batch_visibility,
    choose_backend,
)
from unimm.objectives.next_token import NextTokenConfig


class Blocked(NextTokenConfig):
    """A picture of 4x4 codes in blocks of given sizes; read by nobody else, then copied."""

    sizes: tuple[int, ...] = (16,)
    name: ClassVar[str] = "next_token"
    is_own_context: ClassVar[bool] = False

    def layout(self, tokens, special):
        blocks = np.repeat(np.arange(len(self.sizes)), self.sizes)
        segment = super().layout(tokens, special)
        count = len(blocks)
        return replace(
            segment,
            input_ids=np.full(count, special.pad),
            code_ids=np.zeros(count, dtype=np.int64),
            labels=np.zeros(count, dtype=np.int64),
            position_ids=np.zeros((count, 3), dtype=np.int64),
            block_ids=blocks,
            is_context=False,
        )

    def context(self, codes, special) -> Segment:
        segment = super().context(codes, special)
        return replace(
            segment,
            block_ids=np.zeros_like(segment.block_ids),
            position_ids=image_positions(4, 4),
        )


def rule_of(sizes: tuple[int, ...]):
    config = Blocked()
    object.__setattr__(config, "sizes", sizes)
    layout = layout_document(random_story(0, num_pages=1), config, SPECIAL)
    batch = pack([[layout]], row_length=len(layout), heads=("next_token",))
    boi = int(np.flatnonzero(layout.input_ids == SPECIAL.boi)[0])
    return batch, attention_rule(batch)[0], boi


def test_blocks_of_one_are_causal_attention():
    batch = packed(NextTokenConfig(), [[random_story(0)]], row_length=64)
    length = int((batch.document_ids[0] == 0).sum())
    assert batch.is_causal
    rule = attention_rule(batch)[0]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    assert torch.equal(rule[:length, :length], causal)
    assert not rule[length:, :length].any() and not rule[:length, length:].any()  # padding


def test_one_block_an_image_is_bidirectional_inside_causal_outside():
    batch, rule, boi = rule_of((16,))
    assert not batch.is_causal
    target, copy = slice(boi + 1, boi + 17), slice(boi + 17, boi + 33)
    assert rule[target, target].all() and rule[copy, copy].all()
    assert rule[target, : boi + 1].all() and not rule[: boi + 1, target].any()
    assert not rule[copy, target].any()  # nobody reads the target but itself
    assert rule[boi + 33 :, copy].all() and not rule[boi + 33 :, target].any()
    assert rule[copy, : boi + 1].all()


def test_one_block_a_scale_is_the_mask_of_var():
    sizes = (1, 4, 9)
    _, rule, boi = rule_of(sizes)
    scale = torch.repeat_interleave(torch.arange(3), torch.tensor(sizes))
    target = slice(boi + 1, boi + 1 + sum(sizes))
    # VAR: a scale sees itself and all coarser ones.
    assert torch.equal(rule[target, target], scale[:, None] >= scale[None, :])


def mixed_batch(sizes: tuple[int, ...]):
    config = Blocked()
    object.__setattr__(config, "sizes", sizes)
    layouts = [
        layout_document(random_story(s, index=s), c, SPECIAL)
        for s, c in enumerate((config, NextTokenConfig(), config))
    ]
    return pack([layouts[:2], layouts[2:]], row_length=200, heads=("next_token",))


@pytest.mark.parametrize("sizes", [(16,), (1, 4, 9), (1,) * 16])
def test_flex_predicate_equals_the_dense_rule(sizes):
    batch = mixed_batch(sizes)
    mask_mod = visible_spans(batch).mask_mod()
    b, q, k = torch.meshgrid(torch.arange(2), torch.arange(200), torch.arange(200), indexing="ij")
    assert torch.equal(mask_mod(b, torch.tensor(0), q, k), attention_rule(batch))


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_on_the_cpu_equals_dense():
    batch = packed(NextTokenConfig(), [[random_story(0), random_story(1)]], row_length=128)
    query, key, value = torch.randn(3, 1, 2, 128, 16, generator=torch.Generator().manual_seed(0))
    dense, flex = (
        attend(query, key, value, batch_visibility(batch, backend)) for backend in ("dense", "flex")
    )
    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=0)


def test_grouped_heads_share_keys():
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 5, 8, generator=generator)
    key, value = torch.randn(2, 1, 2, 5, 8, generator=generator)
    mask = torch.ones(5, 5, dtype=torch.bool).tril()[None, None]
    found = attend(query, key, value, Visibility(dense=mask))
    repeated = [x.repeat_interleave(2, 1) for x in (key, value)]
    expected = functional.scaled_dot_product_attention(query, *repeated, attn_mask=mask)
    torch.testing.assert_close(found, expected)


def test_varlen_is_refused_for_blocks_of_several_positions():
    batch, _, _ = rule_of((16,))
    with pytest.raises(ValueError, match="blocks of several positions"):
        batch_visibility(batch, "varlen")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cpu_goes_document_by_document_where_it_can(dtype):
    assert choose_backend(packed(NextTokenConfig(), [[random_story(0)]]), dtype) == "varlen"
    batch, _, _ = rule_of((16,))
    assert choose_backend(batch, dtype) == "dense"


def test_document_by_document_equals_the_dense_mask():
    batch = packed(NextTokenConfig(), [[random_story(0), random_story(1)], [random_story(2)]])
    query = torch.randn(2, 4, 128, 8)
    key, value = torch.randn(2, 2, 2, 128, 8).unbind(0)
    found, expected = (
        attend(query, key, value, batch_visibility(batch, backend))
        for backend in ("varlen", "dense")
    )
    torch.testing.assert_close(found, expected)
