"""Long stories: what a policy leaves visible is what its window says at absolute positions."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import SPECIAL, packed, random_text, tiny_model, tiny_objective
from pipelines import tiny_pipeline

from unimm.document import Document, Part, attention_rule, layout_document
from unimm.generation import CachePolicy, generate
from unimm.generation.cache_policy import find_pages, window_rule
from unimm.generation.engine import Engine
from unimm.nn.attention import Visibility
from unimm.nn.kv_cache import KVCache
from unimm.nn.rope import apply_rope, rope_cos_sin
from unimm.nn.sampling import SamplingConfig
from unimm.objectives import OBJECTIVES

SINKS = CachePolicy(window_pages=2, first_pages=0, first_positions=3, boundary=1)
POLICIES = {
    "sinks": SINKS,
    "first page": CachePolicy(window_pages=1, first_pages=1, first_positions=0, boundary=2),
    "plain window": CachePolicy(window_pages=2, first_pages=0, first_positions=0, boundary=-1),
}


def start(model, texts, policy, *, is_guided=False, given=()) -> Engine:
    documents = [Document(parts=(*given, Part(text_ids=text))) for text in texts]
    return Engine(
        model,
        documents,
        generators=[torch.Generator().manual_seed(i) for i in range(len(texts))],
        capacity=300,
        is_guided=is_guided,
        is_image_guided=is_guided,
        policy=policy,
    )


@torch.no_grad()
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_evicting_equals_the_packed_forward_with_the_window(name, policy):
    """Hidden states before each text position, of stories of six pages, one with given ones."""
    model, config = tiny_model(name).eval(), tiny_objective(name)
    generator = torch.Generator().manual_seed(0)
    texts = [random_text(generator, 2 + page % 3) for page in range(7)]
    engine = start(model, [texts[0]], policy)
    seen, parts = [engine.last[0]], [Part(text_ids=texts[0])]
    for text in texts[1:]:
        parts.append(Part(tokens=engine.draw(SamplingConfig())[0]))
        engine.end_picture()
        seen.append(engine.last[0])
        engine.add_text([text.tolist()])
        seen.append(engine.last[0])
        parts.append(Part(text_ids=text))
    document = Document(parts=tuple(parts))
    batch = packed(config, [[document]], row_length=512)
    layout = layout_document(document, config, SPECIAL)
    visible = attention_rule(batch)
    visible[0, : len(layout), : len(layout)] &= window_rule(layout, SPECIAL, policy)
    x = model.embed_inputs(batch.input_ids, batch.code_ids)
    objective, slots = model.objective(name), batch.slots[name]
    if objective.fills_slots:
        assert slots.tokens is not None
        filled = objective.embed(
            objective.draw(slots.tokens, [torch.Generator().manual_seed(s) for s in slots.seeds])
        )
        x = x.reshape(-1, x.shape[-1]).index_copy(0, slots.index, filled).view(x.shape)
    hidden = model.backbone(x, batch.position_ids, Visibility(dense=visible[:, None]))[0]
    at, labels = layout.head_index["text"], layout.labels[layout.head_index["text"]]
    is_end = (labels == SPECIAL.boi) | (labels == SPECIAL.eos)
    is_start = layout.input_ids[at] == SPECIAL.eoi
    expected = hidden[at[is_end | is_start]]
    torch.testing.assert_close(torch.stack(seen), expected, atol=1e-5, rtol=0)
    # The same document as a prompt: what stands already is windowed and evicted alike.
    stands = tuple(part if part.is_text else replace(part, is_drawn=False) for part in parts[:-1])
    given = start(model, [texts[-1]], policy, given=stands)
    torch.testing.assert_close(given.last[0], seen[-1], atol=1e-5, rtol=0)
    assert given.lengths() == engine.lengths()


@torch.no_grad()
def test_all_branches_lose_the_same_positions_and_documents_their_own():
    model = tiny_model().eval()
    texts = [torch.tensor([7, 8, 9]), torch.tensor([10])]
    engine = start(model, texts, SINKS, is_guided=True)
    sampling = SamplingConfig(guidance_scale=2.0, image_guidance_scale=1.5)
    for page in range(5):
        engine.draw(sampling if page % 2 else SamplingConfig())
        engine.end_picture()
        engine.add_text([[11], [12, 13]])
    first, second = engine.lengths()
    # Nobody has read the last text yet; who asks what follows it has the documents read it.
    assert engine.cache.lengths == [first - 1, second - 2] * 3
    engine.text_logits()
    assert engine.lengths() == [first, second]
    assert engine.cache.lengths == [first, second] + [first - 1, second - 2] * 2
    # Of old pages <boi>, 2 codes and <eoi>; of the first also the document's first 3 positions.
    assert engine._evictor is not None
    pages = engine._evictor.maps[0].pages
    assert [pages.count(i) for i in range(5)] == [3 + 4, 4, 4, 4, 1 + 18]


@torch.no_grad()
def test_nothing_leaves_while_a_mark_is_open():
    cache = KVCache(depth=1, num_rows=2, num_kv_heads=1, max_length=8, head_dim=4)
    cache.advance([0, 1], [5, 5])
    marks = cache.mark([0])
    with pytest.raises(ValueError, match=r"rows \[0\] cannot lose positions while a mark is open"):
        cache.evict([0, 1], [0, 1])
    cache.evict([1], [0, 4])
    assert cache.lengths == [5, 2]
    cache.rewind([0], marks)
    cache.evict([0], [1])
    assert cache.lengths == [1, 2]


@torch.no_grad()
def test_moved_keys_are_keys_at_other_positions():
    cache = KVCache(depth=2, num_rows=2, num_kv_heads=2, max_length=6, head_dim=8)
    keys = torch.randn(2, 2, 4, 8)
    positions = torch.tensor([9, 10, 30, 31])
    places = positions[None, :, None].expand(-1, -1, 3)
    cache.keys[:, 1, :, :4] = apply_rope(keys, *rope_cos_sin(places, 8, 100.0))
    cache.shift([1], [0, 0, -20, -20], 100.0)
    moved = torch.tensor([9, 10, 10, 11])[None, :, None].expand(-1, -1, 3)
    expected = apply_rope(keys, *rope_cos_sin(moved, 8, 100.0))
    torch.testing.assert_close(cache.keys[:, 1, :, :4], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("first_pages", [0, 1])
@pytest.mark.parametrize("boundary", [-1, 1])
def test_reindexed_positions_stay_within_the_window(first_pages, boundary):
    """Keys of the first layer depend on inputs and positions alone: they tell where they stand."""
    model = tiny_model().eval()
    policy = CachePolicy(
        window_pages=2, first_pages=first_pages, boundary=boundary, is_reindexed=True
    )
    engine = start(model, [torch.tensor([7, 8, 9, 10])], policy)
    cursors = []
    for _ in range(8):
        engine.draw(SamplingConfig())
        engine.end_picture()
        cursors.append(engine.cursors[0])
        engine.add_text([[11, 12]])
    # Behind the first pages: an evicted page's ends (<boi>, 4 codes, <eoi>), then the newest page.
    anchor = 1 + 4 + 6 if first_pages else policy.first_positions
    assert set(cursors[3:]) == {anchor + (6 if boundary >= 0 else 0) + 2 + 6}
    engine.text_logits()
    # What stays was moved, and the newest text was read right behind it.
    layer: Any = model.backbone.layers[0]
    x = model.text_embedding(torch.tensor([[SPECIAL.eoi, 11, 12]]))
    key = layer.self_attn.k_proj(layer.input_layernorm(x)).view(1, 3, 2, -1)
    key = layer.self_attn.k_norm(key).transpose(1, 2)
    at = torch.arange(3) + engine.cursors[0] - 3
    rope = rope_cos_sin(at[None, :, None].expand(-1, -1, 3), key.shape[-1], 10_000.0)
    length = engine.lengths()[0]
    found = engine.cache.keys[0, 0, :, length - 3 : length]
    torch.testing.assert_close(found, apply_rope(key, *rope)[0], atol=1e-5, rtol=1e-5)


def test_a_story_goes_on_beyond_the_context():
    pipeline = tiny_pipeline(max_seq_len=120)  # four pages of 2 + 16 + 8
    options: Any = {"num_images": 12, "max_text_tokens": 8, "seed": 0}
    with pytest.raises(ValueError, match="or give a cache_policy"):
        generate(pipeline, "mia", **options)
    policy = CachePolicy(window_pages=2, boundary=0)
    story = generate(pipeline, "mia", cache_policy=policy, **options)
    assert len(story.images) == 12
    again = generate(pipeline, story.prompt, settings=story.settings)
    assert [x.tobytes() for x in again.images] == [x.tobytes() for x in story.images]
    with pytest.raises(ValueError, match="window of 9 pages .* fewer window_pages"):
        generate(pipeline, "mia", cache_policy=CachePolicy(window_pages=9), **options)


def test_a_policy_with_room_for_all_changes_nothing():
    pipeline = tiny_pipeline()
    stories = [
        generate(pipeline, "mia", num_images=3, seed=1, cache_policy=policy)
        for policy in (None, CachePolicy(window_pages=9))
    ]
    assert stories[0].texts == stories[1].texts


def test_pages_and_sinks_are_found_where_they_are():
    texts = [Part(text_ids=torch.tensor([7, 8])), Part(text_ids=torch.tensor([9]))]
    model = tiny_model()
    picture = model.objective("next_token").zeros(torch.device("cpu"))[0]
    parts = (texts[0], Part(tokens=picture), texts[1], Part(tokens=picture))
    layout = layout_document(Document(parts=parts), tiny_objective("next_token"), SPECIAL)
    page, is_sink = find_pages(layout, SPECIAL, SINKS)
    # <bos> 7 8 <boi> 16 codes <eoi> | 9 <boi> 16 codes <eoi>
    assert page.tolist() == [0] * 21 + [1] * 19
    codes = [True, *[False] * 14, True]
    assert is_sink.tolist() == [True] * 4 + codes + [True, False, True] + codes + [True]


@pytest.mark.parametrize("options", [{"window_pages": 0}, {"first_pages": -1}, {"boundary": -2}])
def test_impossible_policies_are_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be"):
        CachePolicy(**options)
