"""Next-token pictures drawn by one graph a code: the codes that its functions draw unrecorded."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from pipelines import tiny_pipeline

from unimm.document import NO_CODE
from unimm.evaluation.drawing_cost import count_work
from unimm.evaluation.launches import count_launches
from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.generation import generate, graphs
from unimm.generation.image import generate_image
from unimm.nn.recorded import unrecorded

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
BEFORE = graphs.BUCKET - 8  # <bos>, this many tokens less two, <boi>: a picture passes the end


def codes(pipeline: Any, texts: list[str], **options: Any) -> list[torch.Tensor]:
    pages = [[text] for text in texts]
    stories: Any = generate(pipeline, [""] * len(texts), page_texts=pages, seed=1, **options)
    return [story.tokens[-1].codes for story in stories]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"temperature": 1.0},
        {"temperature": 0.9, "top_k": 9, "top_p": 0.9},
        {"temperature": 1.0, "num_previews": 2},
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("use_qk_norm", [True, False])
def test_recorded_chains_draw_the_same_codes(use_qk_norm, batch_size, guidance, options):
    pipeline = tiny_pipeline(seed=2, max_seq_len=640, use_qk_norm=use_qk_norm)
    pipeline = pipeline.to("cuda", torch.float32)
    short, other = ["she finds"] * batch_size, ["a red fox"] * batch_size
    long = ["q" * (BEFORE - 2)] * batch_size  # a token a letter
    assert len(pipeline.text_tokenizer.encode(long[0])) == BEFORE - 2
    options = options | {"guidance_scale": guidance, "image_guidance_scale": 1.0}
    with unrecorded():
        expected = [codes(pipeline, x, **options) for x in (short, other, long)]
    assert not torch.equal(torch.stack(expected[0]), torch.stack(expected[1]))
    for _ in range(3):  # recorded in the first, kept and repeated in the others
        for texts, wanted in zip((short, other, long), expected, strict=True):
            found = codes(pipeline, texts, **options)
            assert all(map(torch.equal, found, wanted))
            assert all(int(x.min()) > NO_CODE and int(x.min()) >= 0 for x in found)


def test_ragged_documents_draw_the_same_codes():
    """Prompts of different lengths, documents in different phases, of which one leaves."""
    pipeline = tiny_pipeline(seed=2, max_seq_len=640).to("cuda", torch.float32)
    picture = generate_image(pipeline, "mia", seed=9)
    prompts: list[Any] = [["mia"], [picture, "she finds a red fox"], ["is happy"]]
    options: dict[str, Any] = {"num_images": [2, 3, 1], "max_text_tokens": 4, "seed": 1}
    options |= {"guidance_scale": 1.5, "image_guidance_scale": 1.3}

    def draw() -> list[list[torch.Tensor]]:
        stories: Any = generate(pipeline, prompts, **options)
        return [[x.codes for x in story.tokens if hasattr(x, "codes")] for story in stories]

    with unrecorded():
        expected = draw()
    assert [len(x) for x in expected] == [2, 4, 1]
    for _ in range(3):
        for found, wanted in zip(draw(), expected, strict=True):
            assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_eight_codes_are_one_launch(batch_size, dtype):
    sizes = replace(SIZES["nano"], grid_size=8)
    pipeline = random_pipeline(sizes, device=torch.device("cuda"), dtype=dtype)
    options, prompts = vars(sizes.sampling), ["mia"] * batch_size
    work, _ = count_work(pipeline, prompts, **options)
    steps = len(work.new)
    assert steps == 1 + 64
    told: list[int] = []
    for _ in range(2):
        told.clear()
        generate_image(
            pipeline, prompts, seed=1, progress=lambda _, count: told.append(count), **options
        )
    assert len(told) == steps  # every step is told of, recorded or not
    # Of the 16 steps in the middle, which are codes.
    found = count_launches(pipeline, batch_size=batch_size, trunk_steps=steps, **options)
    assert found["launches a step"] <= 0.5 and found["kernels a step"] > 10
