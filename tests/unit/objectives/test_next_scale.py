"""Next-scale against VAR: mask, inputs, positions; and its bond with the image tokenizer."""

from dataclasses import replace

import pytest
import torch
from helpers import SCALES, SPEC, SPECIAL, TOKENIZER, packed, tiny_image_tokenizer, tiny_model

from unimm.document import Document, ImageTokens, Part, attention_rule, layout_document
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.base import Draw
from unimm.objectives.next_scale import NextScale, NextScaleConfig
from unimm.tokenizer.image import ImageTokenizer

TEN_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def tiny_next_scale() -> NextScale:
    objective = tiny_model("next_scale").objective("next_scale")
    assert isinstance(objective, NextScale)
    return objective


def pyramid_tokens(scales: tuple[int, ...], batch: tuple[int, ...] = ()) -> ImageTokens:
    generator = torch.Generator().manual_seed(0)
    grids = [torch.randint(24, (*batch, n, n), generator=generator) for n in scales]
    return ImageTokens(codes=grids[-1], scale_codes=tuple(grids))


@pytest.mark.parametrize("scales", [TEN_SCALES, (1, 2, 4)])
def test_the_mask_of_a_picture_alone_is_vars(scales) -> None:
    config = NextScaleConfig(scales=scales)
    parts = (
        Part(text_ids=torch.zeros(0, dtype=torch.int64)),
        Part(tokens=pyramid_tokens(scales)),
    )
    document = Document(parts=parts, is_open=True)
    count = sum(n * n for n in scales)
    batch = packed(config, [[document]], row_length=count + 2)
    found = attention_rule(batch)[0]
    level = torch.cat([torch.full((n * n,), k) for k, n in enumerate(scales)])
    # VAR: attend where level(query) >= level(key); what comes first here is <bos> and <boi>.
    assert torch.equal(found[2:, 2:], level[:, None] >= level[None, :])
    assert found[2:, :2].all()
    assert int(batch.slots["next_scale"].index.min()) == 2


def test_positions_lie_on_the_finest_grid() -> None:
    layout = NextScaleConfig(scales=(1, 3, 4)).layout(pyramid_tokens((1, 3, 4)), SPECIAL)
    assert layout.position_ids[0].tolist() == [0, 2, 2]
    assert [p[2] for p in layout.position_ids[1:4].tolist()] == [0, 2, 3]
    assert layout.position_ids[-1].tolist() == [0, 3, 3]
    assert layout.labels.shape == (26,) and not layout.is_context


def test_inputs_are_embedded_sums_of_the_coarser_scales() -> None:
    objective = tiny_next_scale()
    tokenizer, codes = objective.image_tokenizer, pyramid_tokens(SCALES, (3,)).scale_codes
    assert tokenizer.pyramid is not None
    fed = tokenizer.pyramid.inputs(codes, SCALES, tokenizer.quantizer)
    embedded = objective.embed(Draw(tokens=ImageTokens(scale_codes=codes))).view(3, 21, -1)
    for k, (vectors, start) in enumerate(zip(fed, (1, 5), strict=True), start=1):
        count = SCALES[k] ** 2
        expected = objective.project(vectors.flatten(2).transpose(1, 2))
        expected = expected + objective._places(k, k + 1)
        torch.testing.assert_close(embedded[:, start : start + count], expected)
    finest_changed = (*codes[:-1], torch.zeros_like(codes[-1]))
    again = objective.embed(Draw(tokens=ImageTokens(scale_codes=finest_changed)))
    torch.testing.assert_close(again.view(3, 21, -1), embedded)


def test_the_drawn_copy_is_that_of_training() -> None:
    """Codes left behind by ``sample`` are those that encoding stores beside the same scales."""
    tokenizer = tiny_image_tokenizer()
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = tokenizer.encode(pixels, "1-2-4")
    objective = NextScaleConfig(scales=SCALES).build(32, SPEC)
    objective.bind(tokenizer)
    head = objective.head
    head.weight.data = torch.eye(24, 32)
    steps = objective.sample(
        torch.zeros(2, 32),
        generators=[torch.Generator().manual_seed(i) for i in range(2)],
        sampling=SamplingConfig(temperature=0.0),
        embed_codes=lambda codes: codes,
    )
    next(steps)
    for k, codes in enumerate(encoded.scale_codes):  # hidden states that predict these very codes
        hidden = torch.eye(24, 32)[codes.flatten(1)]
        try:
            block = steps.send(hidden)
            assert block.x.shape[1] == block.keep == SCALES[k + 1] ** 2
        except StopIteration as stop:
            drawn = stop.value
    assert encoded.codes is not None and torch.equal(drawn.codes, encoded.codes)
    torch.testing.assert_close(tokenizer.decode(drawn), tokenizer.decode(encoded))


def test_guidance_grows_over_the_scales() -> None:
    objective = tiny_next_scale()
    seen: list[list[int]] = []
    batch, dim = 1, 32
    head = torch.zeros(24, dim)
    head[0, 0], head[1, 1] = 1.0, 1.0
    objective.head.weight.data = head
    # Code 0 is better by 0.5 without guidance, code 1 by 1 in what guidance adds.
    for scale in (1.0, 1.4, 1.6, 4.0):
        steps = objective.sample(
            torch.zeros(2, dim),
            generators=[torch.Generator()],
            sampling=SamplingConfig(temperature=0.0, guidance_scale=scale),
            embed_codes=lambda codes: codes,
        )
        block = next(steps)
        while True:
            hidden = torch.zeros(2, block.x.shape[1], dim)
            hidden[0, :, 0], hidden[1, :, 0] = 0.5, 1.5
            try:
                block = steps.send(hidden if scale != 1 else hidden[:batch])
            except StopIteration as stop:
                seen.append([int(codes.flatten()[0]) for codes in stop.value.scale_codes])
                break
    # 0.5 - (w - 1) against 0: code 0 as long as w < 1.5; w = 1, 1 + (s - 1) / 2, s.
    zero_is_best = [[0.5 - (1 + (s - 1) * k / 2 - 1) > 0 for k in range(3)] for s in (1.4, 1.6, 4)]
    assert [[code == 0 for code in codes] for codes in seen[1:]] == zero_is_best
    assert seen[0] == [0, 0, 0]


def test_an_image_tokenizer_without_the_schedule_is_refused() -> None:
    config = replace(TOKENIZER, schedules=("single",))
    model = tiny_model("next_scale")
    with pytest.raises(ValueError, match=r"draws by 1-2-4, but .* trained on single: set"):
        model.bind(ImageTokenizer(config))
    fresh = NextScaleConfig(scales=SCALES).build(32, SPEC)
    with pytest.raises(ValueError, match="model.bind first"):
        fresh.embed(Draw(tokens=pyramid_tokens(SCALES, (1,))))


def test_the_bound_tokenizer_is_no_part_of_the_model() -> None:
    model = tiny_model("next_scale")
    objective = model.objective("next_scale")
    assert isinstance(objective, NextScale)
    assert not any("tokenizer" in name for name in model.state_dict())
    model.to(torch.bfloat16)
    assert objective.image_tokenizer.codebook_vectors.dtype == torch.float32
    embedded = objective.embed(Draw(tokens=pyramid_tokens(SCALES, (1,))))
    assert embedded.dtype == torch.bfloat16


def test_bad_scales_are_named() -> None:
    with pytest.raises(ValueError, match="4-2-1"):
        NextScaleConfig(scales=(4, 2, 1))


def test_a_document_that_ends_in_a_picture_has_no_copy() -> None:
    config, tokens = NextScaleConfig(scales=SCALES), pyramid_tokens(SCALES)
    text = Part(text_ids=torch.tensor([7, 8]))
    closed = Document(parts=(text, Part(tokens=tokens)))
    open_ended = Document(parts=(text, Part(tokens=tokens)), is_open=True)
    lengths = [len(layout_document(d, config, SPECIAL)) for d in (closed, open_ended)]
    assert lengths == [3 + 1 + 21 + 16 + 1, 3 + 1 + 21]
