"""The story loop never asks which objective draws; denoisers cost what their steps say."""

import itertools
from typing import Any

import pytest
from PIL import Image
from pipelines import tiny_pipeline

from unimm.diffusion.sampler import EvaluationCounter
from unimm.generation import generate_image, generate_story
from unimm.objectives import OBJECTIVES


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_interleaved_stories(name):
    pipeline = tiny_pipeline(name)
    options: Any = {"num_images": 3, "max_text_tokens": 6, "guidance_scale": 1.5}
    prompts = ["mia the fox", "she is happy now."]
    stories: Any = generate_story(pipeline, prompts, seed=0, **options)
    for i, story in enumerate(stories):
        kinds = [type(part) is str for part in story.parts]
        assert kinds == [True, False] * 3
        alone: Any = generate_story(pipeline, prompts[i], seed=i, **options)
        assert story.texts == alone.texts
        assert [x.tobytes() for x in story.images] == [x.tobytes() for x in alone.images]
    streamed: Any = list(generate_story(pipeline, prompts[0], seed=0, stream=True, **options))
    pictures = [event.image for event in streamed if event.image is not None]
    assert [x.tobytes() for x in pictures] == [x.tobytes() for x in stories[0].images]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_given_picture_is_read(name):
    pipeline = tiny_pipeline(name)
    given = Image.new("RGB", (16, 16), "red")
    prompt: Any = ["mia", given, "she"]
    story: Any = generate_story(pipeline, prompt, num_images=1, seed=0)
    assert len(story.images) == 2


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
