"""What every image objective promises, over the registry: a new objective passes as it is."""

import io

import pytest
import torch
from helpers import SPEC, SPECIAL, packed, random_story, tiny_model, tiny_objective
from safetensors.torch import load, save
from torch import Tensor

from unimm.document import Document, Part, attention_rule, layout_document, pack
from unimm.generation.engine import Engine, picture_lengths
from unimm.model import UniMM
from unimm.nn.attention import Visibility
from unimm.nn.kv_cache import KVCache
from unimm.nn.sampling import SamplingConfig
from unimm.objectives import OBJECTIVES

TOLERANCE = 1e-5
SAMPLING = SamplingConfig(temperature=1.0)

pytestmark = pytest.mark.parametrize("name", sorted(OBJECTIVES))


def inputs_of(model: UniMM, batch) -> Tensor:
    """Embeddings ``(B, L, D)`` of a packed batch, slots filled by a fixed draw."""
    objective = model.objective(batch.heads[0])
    slots = batch.slots[batch.heads[0]]
    x = model.embed_inputs(batch.input_ids, batch.code_ids)
    if slots.tokens is not None and objective.fills_slots:
        generators = [torch.Generator().manual_seed(seed) for seed in slots.seeds]
        filled = objective.embed(objective.draw(slots.tokens, generators))
        x = x.reshape(-1, x.shape[-1]).index_copy(0, slots.index, filled).view(x.shape)
    return x


def hidden_of(model: UniMM, batch) -> Tensor:
    """Hidden states ``(B, L, D)`` of a packed batch."""
    x = inputs_of(model, batch)
    return model.backbone(x, batch.position_ids, Visibility(dense=attention_rule(batch)[:, None]))


@torch.no_grad()
def test_cached_blocks_equal_the_packed_forward(name):
    """Block by block against the cache, with a rewind after a target that nobody reads later."""
    model = tiny_model(name)
    batch = packed(tiny_objective(name), [[random_story(0, num_pages=3)]], row_length=160)
    expected = hidden_of(model, batch)[0]
    x = inputs_of(model, batch)
    config = model.config.backbone
    cache = KVCache(
        depth=config.depth,
        num_rows=1,
        num_kv_heads=config.num_kv_heads,
        max_length=128,
        head_dim=config.head_width,
    )
    length = int((batch.document_ids[0] == 0).sum())
    blocks, segments = batch.block_ids[0, :length], batch.segment_ids[0, :length]
    mark, at = 0, 0
    while at < length:
        count = int((blocks == blocks[at]).sum())
        if at and segments[at] != segments[at - 1]:
            if not batch.is_context[0, at - 1]:
                cache.rewind([0], [mark])
            mark = cache.lengths[0]
        view = cache.view([0], count, is_causal=False)
        span = slice(at, at + count)
        found = model.backbone(x[:, span], batch.position_ids[:, span], cache=view)[0]
        cache.advance([0], [count])
        torch.testing.assert_close(found, expected[span], atol=TOLERANCE, rtol=0)
        at += count


@torch.no_grad()
def test_engine_sees_what_training_sees(name):
    """Hidden states before each text position after drawn pictures equal the training forward."""
    model = tiny_model(name).eval()
    texts = [[7, 8, 9], [10, 11], [12, 13, 14, 15]]
    engine = start_engine(model, [texts[0]], seed=3, is_guided=False)
    seen, parts = [engine.last[0]], [Part(text_ids=torch.tensor(texts[0]))]
    for text in texts[1:]:
        parts.append(Part(tokens=engine.draw(SAMPLING)[0]))
        engine.end_picture()
        seen.append(engine.last[0])
        engine.add_text([text])
        seen.append(engine.last[0])
        parts.append(Part(text_ids=torch.tensor(text)))
    layout = layout_document(Document(parts=tuple(parts)), tiny_objective(name), SPECIAL)
    batch = pack([[layout]], row_length=len(layout), heads=(name,))
    hidden = hidden_of(model, batch)[0]
    labels = layout.labels[layout.head_index["text"]]
    # What predicts <boi> or <eos> ends a text; what stands on <eoi> begins one.
    at = layout.head_index["text"]
    is_end = (labels == SPECIAL.boi) | (labels == SPECIAL.eos)
    is_start = layout.input_ids[at] == SPECIAL.eoi
    expected = hidden[at[is_end | is_start]]
    torch.testing.assert_close(torch.stack(seen), expected, atol=TOLERANCE, rtol=0)


@torch.no_grad()
def test_unconditional_rows_are_a_document_with_hidden_text(name):
    """Whether they drew along or caught up, they hold nulls for text and the same pictures."""
    model = tiny_model(name).eval()
    guided = SamplingConfig(guidance_scale=2.0)
    engines = [start_engine(model, [[7, 8, 9]], seed=1, is_guided=True) for _ in range(2)]
    drawn = [engines[0].draw(SAMPLING), engines[1].draw(guided)]
    for engine, tokens in zip(engines, drawn, strict=True):
        engine.end_picture()
        engine.add_text([[10, 11]])
        engine._begin_picture([1])
        length = engine.cache.lengths[1]
        parts = (
            Part(text_ids=torch.tensor([SPECIAL.null] * 3)),
            Part(tokens=tokens[0], is_drawn=False),
            Part(text_ids=torch.tensor([SPECIAL.null] * 2)),
        )
        alone = start_engine(model, [[]], seed=0, is_guided=False, parts=parts)
        alone._begin_picture([0])
        assert length == alone.cache.lengths[0]
        torch.testing.assert_close(
            engine.cache.keys[:, 1, :, :length],
            alone.cache.keys[:, 0, :, :length],
            atol=TOLERANCE,
            rtol=0,
        )


@torch.no_grad()
def test_a_document_alone_equals_the_same_packed(name):
    model = tiny_model(name)
    config, first, second = tiny_objective(name), random_story(0), random_story(1, index=1)
    alone = hidden_of(model, packed(config, [[second]], row_length=128))
    both = hidden_of(model, packed(config, [[first, second], [first]], row_length=200))
    start = len(layout_document(first, config, SPECIAL))
    length = len(layout_document(second, config, SPECIAL))
    torch.testing.assert_close(
        both[0, start : start + length], alone[0, :length], atol=TOLERANCE, rtol=0
    )


def test_one_batch_overfits(name):
    model = tiny_model(name)
    batch = packed(tiny_objective(name), [[random_story(0)], [random_story(1, index=1)]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(80):
        total = model(batch).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        losses.append(float(total.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_gradients_reach_every_parameter_within_three_steps(name):
    model = tiny_model(name)
    batch = packed(tiny_objective(name), [[random_story(0)]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    reached: set[str] = set()
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).total.backward()
        reached |= {
            key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()
        }
        optimizer.step()
    assert reached == {key for key, _ in model.named_parameters()}


@torch.no_grad()
def test_same_generator_same_sample_and_promised_shape(name):
    model = tiny_model(name).eval()
    first, again, other = (
        start_engine(model, [[7, 8]], seed=seed, is_guided=True).draw(
            SamplingConfig(guidance_scale=1.5)
        )
        for seed in (5, 5, 6)
    )
    assert first.codes is not None and again.codes is not None and other.codes is not None
    assert first.codes.shape == (1, SPEC.grid_size, SPEC.grid_size)
    assert first.codes.dtype == torch.int64
    assert 0 <= int(first.codes.min()) <= int(first.codes.max()) < SPEC.codebook_size
    assert torch.equal(first.codes, again.codes)
    assert not torch.equal(first.codes, other.codes)


@torch.no_grad()
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_batch_draws_what_each_draws_alone(name, scale):
    model = tiny_model(name).eval()
    sampling = SamplingConfig(guidance_scale=scale)
    prompts = [[7, 8, 9, 10], [11], [12, 13]]
    together = start_engine(model, prompts, seed=0, is_guided=scale != 1)
    pages = []
    for _ in range(2):
        pages.append(together.draw(sampling).codes)
        together.end_picture()
        together.add_text([[20], [21, 22, 23], []])
    texts = [[20], [21, 22, 23], []]
    for i, prompt in enumerate(prompts):
        alone = start_engine(model, [prompt], seed=i, is_guided=scale != 1)
        for page in pages:
            assert torch.equal(alone.draw(sampling).codes[0], page[i])  # type: ignore[index]
            alone.end_picture()
            alone.add_text([texts[i]])


def test_state_round_trips(name):
    model, other = tiny_model(name, seed=0), tiny_model(name, seed=1)
    batch = packed(tiny_objective(name), [[random_story(0)]])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    other.load_state_dict(load(save(state)))
    assert torch.equal(model(batch).total, other(batch).total)
    torch.save(tiny_objective(name), io.BytesIO())  # configs travel to loader workers


def start_engine(model, prompts, *, seed, is_guided, parts=None) -> Engine:
    documents = [
        Document(parts=parts or (Part(text_ids=torch.tensor(p, dtype=torch.int64)),))
        for p in prompts
    ]
    return Engine(
        model,
        documents,
        generators=[torch.Generator().manual_seed(seed + i) for i in range(len(prompts))],
        capacity=20 + 4 * picture_lengths(model)[1],
        is_guided=is_guided,
    )
