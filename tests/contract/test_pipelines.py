"""Every objective of the registry in a pipeline: stories, given pictures, model folders."""

from typing import Any

import numpy as np
import pytest
import torch
from pipelines import tiny_pipeline

from unimm.document import Document, Part
from unimm.generation.engine import Engine
from unimm.generation.image import generate_image
from unimm.generation.story import generate_story
from unimm.objectives import OBJECTIVES
from unimm.pictures import decode_image, encode_image
from unimm.pipeline import load_pipeline

pytestmark = pytest.mark.parametrize("name", sorted(OBJECTIVES))


def assert_same(first: Any, second: Any) -> None:
    """Latents are decoded: sums in another order may round a level up or down."""
    for a, b in zip(first, second, strict=True):
        levels = np.array(a).astype(int) - np.array(b).astype(int)
        assert np.abs(levels).max() <= 1


def test_interleaved_stories(name):
    pipeline = tiny_pipeline(name)
    options: Any = {"num_images": 3, "max_text_tokens": 6, "guidance_scale": 1.5}
    prompts = ["mia the fox", "she is happy now."]
    stories: Any = generate_story(pipeline, prompts, seed=0, **options)
    for i, story in enumerate(stories):
        assert [type(part) is str for part in story.parts] == [True, False] * 3
        alone: Any = generate_story(pipeline, prompts[i], seed=i, **options)
        assert story.texts == alone.texts
        assert_same(story.images, alone.images)
    streamed: Any = list(generate_story(pipeline, prompts[0], seed=0, stream=True, **options))
    assert_same([x.image for x in streamed if x.image is not None], stories[0].images)


def test_a_story_goes_on_from_a_given_picture(name):
    pipeline = tiny_pipeline(name)
    given = generate_image(pipeline, ["mia", "she"], seed=0)
    prompts: Any = [["mia", picture, "she"] for picture in given]
    stories: Any = generate_story(pipeline, prompts, num_images=1, seed=[2, 2])
    for story, picture in zip(stories, given, strict=True):
        assert story.images[0].tobytes() == picture.tobytes() and len(story.images) == 2
    parts = [Part(tokens=encode_image(pipeline, picture), is_drawn=False) for picture in given]
    engine = Engine(
        pipeline.model,
        [Document(parts=(part,)) for part in parts],
        generators=[torch.Generator(), torch.Generator()],
        capacity=100,
        is_guided=False,
    )
    assert not torch.allclose(engine.last[0], engine.last[1], atol=1e-3)  # they are read


def test_the_model_folder_keeps_it(name, tmp_path):
    pipeline = tiny_pipeline(name)
    pipeline.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu", dtype=torch.float32)
    expected, found = (generate_image(p, "mia", seed=4) for p in (pipeline, loaded))
    assert expected.tobytes() == found.tobytes()
    tokens = encode_image(loaded, found)
    assert tokens.codes is not None and decode_image(loaded, tokens).size == (16, 16)
