"""Denoisers cost what their steps say, and what they draw is decoded from latents."""

import itertools

import numpy as np
import pytest
import torch
from pipelines import tiny_pipeline

from unimm.diffusion.sampler import EvaluationCounter
from unimm.document import ImageTokens
from unimm.generation import generate_image
from unimm.pictures import decode_images


def test_a_denoiser_is_asked_once_a_step_and_branch():
    pipeline = tiny_pipeline("diffusion")
    counter = EvaluationCounter()
    objective = pipeline.model.objective("diffusion")
    stop = counter.watch(objective.denoiser)  # type: ignore[arg-type]
    trunk: list[int] = []
    generate_image(
        pipeline,
        ["a red car", "two"],
        num_steps=7,
        guidance_scale=2.0,
        seed=0,
        progress=lambda _, positions: trunk.append(positions),
    )
    assert (counter.num_calls, counter.num_rows) == (7, 7 * 2 * 2)
    # The trunk runs over the queries; nothing follows that would read the codes left behind.
    assert [after - before for before, after in itertools.pairwise(trunk)].count(16) == 1
    stop()
    generate_image(pipeline, "a red car", num_steps=7, seed=0)
    assert counter.num_calls == 7


@pytest.mark.parametrize("name", ["next_token", "diffusion"])
def test_what_was_denoised_is_decoded_from_its_latents(name):
    pipeline = tiny_pipeline(name)
    tokenizer = pipeline.image_tokenizer
    latents = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    tokens = ImageTokens(codes=torch.zeros(4, 4, dtype=torch.int64), latents=latents)
    is_latent = name == "diffusion"
    pixels = tokenizer.decode(tokens, prefer_latents=is_latent)
    found = torch.from_numpy(np.array(decode_images(pipeline, [tokens])[0])).permute(2, 0, 1)
    assert torch.equal(found, ((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    other = tokenizer.decode(tokens, prefer_latents=not is_latent)
    assert not torch.allclose(pixels, other)


def test_in_trunk_denoising_runs_the_trunk_at_every_step():
    pipeline = tiny_pipeline("transfusion")
    counter = EvaluationCounter()
    stop = counter.watch(pipeline.model.backbone)
    generate_image(pipeline, "a red car", num_steps=7, seed=0)
    few = counter.num_calls
    generate_image(pipeline, "a red car", num_steps=17, seed=0)
    assert counter.num_calls - few == few + 10
    stop()


def test_steps_change_the_picture_and_zero_is_the_default():
    pipeline = tiny_pipeline("diffusion")

    def drawn(**options):
        return generate_image(pipeline, "a red car", seed=3, **options).tobytes()

    assert drawn() == drawn(num_steps=0) == drawn(num_steps=10) != drawn(num_steps=3)
    assert drawn(temperature=0.0, num_steps=10) != drawn()
    with pytest.raises(ValueError, match="num_steps must be 0"):
        drawn(num_steps=-1)
