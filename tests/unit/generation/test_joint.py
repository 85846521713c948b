"""A model of several objectives draws by the one that is asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from pipelines import tiny_pipeline

from unimm.diffusion.sampler import EvaluationCounter
from unimm.generation.image import generate_image
from unimm.generation.story import generate_story
from unimm.objectives import OBJECTIVES
from unimm.pipeline import load_pipeline


@pytest.fixture(scope="module")
def joint():
    return tiny_pipeline(*OBJECTIVES)


def steps(pipeline, objective) -> int:
    """Forwards of the trunk for one unguided picture."""
    counter = EvaluationCounter()
    stop = counter.watch(pipeline.model.backbone)
    generate_image(pipeline, "mia", seed=0, guidance_scale=1.0, objective=objective)
    stop()
    return counter.num_rows


def test_every_objective_can_be_asked_for(joint):
    drawn = {
        name: np.array(generate_image(joint, "mia", seed=0, objective=name)) for name in OBJECTIVES
    }
    assert len({picture.tobytes() for picture in drawn.values()}) == len(OBJECTIVES)
    by_default = np.array(generate_image(joint, "mia", seed=0))
    assert np.array_equal(drawn[joint.model.config.heads[0]], by_default)
    # The prompt from <bos> to <boi>, then a step a code, a scale, a pass, a query, an evaluation.
    found = {name: steps(joint, name) - 1 for name in OBJECTIVES}
    assert found == {
        "next_token": 16,
        "next_scale": 3,
        "masked": 12,
        "diffusion": 1,
        "transfusion": 10,
    }


def test_defaults_and_layout_follow_the_objective(joint):
    scales, noise = joint.draw_by("next_scale"), joint.draw_by("diffusion")
    assert scales.schedule == "1-2-4" and noise.schedule == "single"
    assert noise.sampler.first_page == noise.drawing.default_sampling[0]
    assert noise.sampler.text == joint.sampler.text
    assert noise.draw_by(None) is noise
    with pytest.raises(ValueError, match="this model draws by .*, not by 'pixels'"):
        generate_image(joint, "mia", objective="pixels")


def test_the_ceiling_is_what_the_objective_could_draw_at_best(joint):
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    tokenizer = joint.image_tokenizer
    seen = {name: joint.draw_by(name).reconstruct(pixels) for name in OBJECTIVES}
    through_latents = tokenizer.decode_vectors(tokenizer.encode(pixels).latents)
    assert torch.equal(seen["diffusion"], through_latents)
    assert torch.equal(seen["transfusion"], through_latents)
    assert torch.equal(seen["masked"], tokenizer.reconstruct(pixels, "single"))
    assert torch.equal(seen["next_scale"], tokenizer.reconstruct(pixels, "1-2-4"))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_stories_by_any_objective(joint, name):
    options: dict[str, Any] = {"num_images": 2, "max_text_tokens": 4, "seed": 0}
    story = generate_story(joint, "mia", objective=name, **options)
    assert len(story.images) == 2 and story.settings["objective"] == name
    same = generate_story(joint.draw_by(name), "mia", **options)
    assert [x.tobytes() for x in same.images] == [x.tobytes() for x in story.images]


def test_a_folder_is_loaded_to_draw_by_one(joint, tmp_path):
    joint.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, device="cpu", objective="masked")
    assert loaded.drawing.name == "masked"
    with pytest.raises(ValueError, match="not by 'pixels'"):
        load_pipeline(tmp_path, device="cpu", objective="pixels")
