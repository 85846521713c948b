"""Stories on a GPU: half precision, the same API."""

import pytest
import torch
from pipelines import tiny_pipeline

import unimm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_story_is_drawn_and_repeats(dtype, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pipeline = unimm.load_pipeline(tmp_path, device="cuda", dtype=dtype)
    prompts = ["mia the fox", "she", ""]
    first, again = (
        unimm.generate_story(pipeline, prompts, num_images=2, seed=0, max_text_tokens=8)
        for _ in range(2)
    )
    for story, other in zip(first, again, strict=True):
        assert len(story.images) == 2
        assert story.texts == other.texts
        assert [x.tobytes() for x in story.images] == [x.tobytes() for x in other.images]


def test_float32_draws_the_cpus_greedy_picture(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pictures = [
        unimm.generate_image(
            unimm.load_pipeline(tmp_path, device=device, dtype=torch.float32),
            "mia the fox",
            temperature=0.0,
        )
        for device in ("cpu", "cuda")
    ]
    levels = [torch.tensor(list(x.tobytes())).float() for x in pictures]
    torch.testing.assert_close(levels[0], levels[1], atol=2.0, rtol=0)
