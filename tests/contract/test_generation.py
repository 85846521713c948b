"""However a document is generated, its tokens are the same; over every objective."""

from typing import Any

import pytest
import torch
from helpers import SPECIAL, tiny_model, tiny_objective
from pipelines import tiny_pipeline
from recomputed_rows import RecomputedRows
from torch import Tensor

import unimm.generation.engine as engine_module
import unimm.generation.writer as writer
from unimm.document import Document, ImageTokens, Part, attention_rule, pack
from unimm.generation import Story, generate
from unimm.generation.engine import Engine
from unimm.nn import sampling as sampling_module
from unimm.nn.attention import Visibility
from unimm.nn.sampling import SamplingConfig
from unimm.objectives import OBJECTIVES, masked
from unimm.pipeline import Pipeline

pytestmark = pytest.mark.parametrize("name", sorted(OBJECTIVES))

MARGIN = 1e-5  # a draw nearer to the next token than this may flip under other rounding
OPTIONS: dict[str, Any] = {
    "max_text_tokens": 4,
    "max_images": 2,
    "guidance_scale": 1.5,
    "image_guidance_scale": 1.3,
    "temperature": 1.0,
}


def prompts_of(pipeline: Pipeline) -> tuple[list[Any], list[int | None]]:
    """Documents of every kind, and how many pictures each draws."""
    picture = generate(pipeline, "a", num_images=1, max_text_tokens=0, seed=9).tokens[-1]
    prompts = [["mia the fox"], [picture, "she"], [picture, "is happy", picture], [""]]
    return prompts, [2, 0, 1, None]


class Margins:
    """Listens to every draw: how near was the nearest other token?"""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.close = 0
        draw = sampling_module.sample_from_logits

        def listen(logits: Tensor, uniform: Tensor, config: Any) -> Tensor:
            edges = sampling_module.filter_logits(logits.float(), config).softmax(-1).cumsum(-1)
            gaps = (edges - uniform[:, None] * edges[:, -1:]).abs().amin(-1)
            self.close += int((gaps < MARGIN).sum())
            return draw(logits, uniform, config)

        for module in (writer, masked, sampling_module):
            monkeypatch.setattr(module, "sample_from_logits", listen)


def count_flips(first: Story, second: Story) -> int:
    """Documents that differ, 0 or 1: after a flip everything may differ."""
    assert len(first.tokens) == len(second.tokens) or first.tokens != second.tokens
    for a, b in zip(first.tokens, second.tokens, strict=False):
        if isinstance(a, ImageTokens) != isinstance(b, ImageTokens):
            return 1
        if isinstance(a, ImageTokens) and isinstance(b, ImageTokens):
            if a.latents is not None and b.latents is not None:
                if not torch.allclose(a.latents, b.latents, atol=1e-3):
                    return 1
            elif not torch.equal(codes_of(a), codes_of(b)):
                return 1
        elif a != b:
            return 1
    return int(len(first.tokens) != len(second.tokens))


def codes_of(tokens: ImageTokens) -> Tensor:
    assert tokens.codes is not None
    return tokens.codes


def test_cached_batched_streamed_and_single_tokens_are_equal(name, monkeypatch):
    pipeline = tiny_pipeline(name)
    prompts, counts = prompts_of(pipeline)
    margins = Margins(monkeypatch)
    together: Any = generate(pipeline, prompts, num_images=counts, seed=3, **OPTIONS)
    flips = {"alone": 0, "streamed": 0, "recomputed": 0}
    streamed: Any = generate(pipeline, prompts, num_images=counts, seed=3, stream=True, **OPTIONS)
    for event in streamed:
        if event.story is not None:
            flips["streamed"] += count_flips(together[event.index], event.story)
    for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True)):
        alone: Any = generate(pipeline, [prompt], num_images=count, seed=3 + i, **OPTIONS)
        flips["alone"] += count_flips(together[i], alone[0])
    monkeypatch.setattr(engine_module, "CachedRows", RecomputedRows)
    recomputed: Any = generate(pipeline, prompts, num_images=counts, seed=3, **OPTIONS)
    for first, second in zip(together, recomputed, strict=True):
        flips["recomputed"] += count_flips(first, second)
    assert sum(flips.values()) <= margins.close, flips
    # With these seeds none comes near: whoever breaks the cache cannot hide behind the allowance.
    assert flips == {"alone": 0, "streamed": 0, "recomputed": 0}


def test_settings_make_the_same_story_again(name):
    pipeline = tiny_pipeline(name)
    prompts, counts = prompts_of(pipeline)
    for prompt, count in zip(prompts, counts, strict=True):
        story: Any = generate(pipeline, [prompt], num_images=count, seed=5, **OPTIONS)
        again: Any = generate(pipeline, [prompt], settings=story[0].settings)
        assert count_flips(story[0], again[0]) == 0
        assert again[0].settings == story[0].settings
        other: Any = generate(pipeline, [prompt], settings=story[0].settings, seed=6)
        assert count_flips(story[0], other[0]) == 1


def test_dropping_earlier_pictures_is_a_document_that_never_showed_them(name):
    """Scale 0 draws from the branch alone: what the pictures were cannot matter."""
    pipeline = tiny_pipeline(name)
    pictures = [ImageTokens(codes=torch.full((4, 4), code)) for code in (3, 17)]

    def drawn(scale: float) -> list[Tensor]:
        stories: Any = generate(
            pipeline,
            [["mia", picture, "she"] for picture in pictures],
            page_texts=[["is", "happy"]] * 2,
            seed=[4, 4],
            guidance_scale=1.0,
            image_guidance_scale=scale,
        )
        # The second picture: by then the branch has lost a picture that it drew itself.
        tokens = [story.tokens[i] for story in stories for i in (3, 5)]
        return [codes_of(x).float() if x.latents is None else x.latents for x in tokens]

    blind, seeing = torch.stack(drawn(0.0)), torch.stack(drawn(1.0))
    torch.testing.assert_close(blind[:2], blind[2:], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(seeing[:2], seeing[2:], atol=1e-3, rtol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("draws_along", [False, True])
def test_every_branch_is_the_document_with_that_hidden(name, draws_along):
    """Whether a branch drew along or caught up, it holds nulls for what it hides, and the rest."""
    model = tiny_model(name).eval()
    config = tiny_objective(name)
    scale = 1.5 if draws_along else 1.0
    sampling = SamplingConfig(guidance_scale=scale, image_guidance_scale=scale)
    engine = start_engine(model, (Part(text_ids=torch.tensor([7, 8, 9])),), is_guided=True)
    parts = [Part(text_ids=torch.tensor([7, 8, 9]))]
    for text in ([10, 11], [12]):
        parts.append(Part(tokens=engine.draw(sampling)[0], is_drawn=False))
        engine.end_picture()
        engine.add_text([text])
        parts.append(Part(text_ids=torch.tensor(text)))
    engine._begin_picture([1, 2])
    for row, branch in enumerate(engine.branches[1:], start=1):
        hidden = branch.layout(Document(parts=tuple(parts)), config, SPECIAL)
        batch = pack([[hidden]], row_length=len(hidden), heads=(name,))
        alone = start_engine(model, tuple(parts), is_guided=False)
        alone.cache.rewind([0], [0])
        alone.model.backbone(
            model.embed_inputs(batch.input_ids, batch.code_ids),
            batch.position_ids,
            Visibility(dense=attention_rule(batch)[:, None]),
            alone.cache.view([0], len(hidden), is_causal=True),
        )
        assert engine.cache.lengths[row] == len(hidden) + 1  # and <boi>
        torch.testing.assert_close(
            engine.cache.keys[:, row, :, : len(hidden)],
            alone.cache.keys[:, 0, :, : len(hidden)],
            atol=MARGIN,
            rtol=0,
        )


def start_engine(model: Any, parts: tuple[Part, ...], *, is_guided: bool) -> Engine:
    return Engine(
        model,
        [Document(parts=parts)],
        generators=[torch.Generator().manual_seed(3)],
        capacity=160,
        is_guided=is_guided,
        is_image_guided=is_guided,
    )
