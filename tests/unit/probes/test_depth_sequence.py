import pytest
import torch
from depth_scenes import two_scenes
from pipelines import tiny_pipeline

from unimm.nn.sampling import SamplingConfig
from unimm.probes.dense import OneCycleConfig
from unimm.probes.depth_sequence import (
    depth_pixels,
    draw_depth,
    encode,
    train_to_draw_depth,
)


@pytest.mark.parametrize("objective", ["next_token", "next_scale", "masked"])
def test_a_trained_model_draws_the_depth_of_the_picture_it_was_given(objective):
    """Codes for codes, by the engine; in another order, each picture still gets its own."""
    part = two_scenes()
    pipeline = tiny_pipeline(objective)
    before = {name: x.clone() for name, x in pipeline.model.state_dict().items()}
    config = OneCycleConfig(num_steps=150, batch_size=8, learning_rate=3e-3)
    trained = train_to_draw_depth(pipeline, part, config, seed=0, show_progress=False)
    pictures = encode(trained, part.pixels)
    order = [1, 0, 1]
    drawn = draw_depth(
        trained,
        pictures.map(lambda x: x[order]),
        SamplingConfig(temperature=0.0),
        seeds=[5, 6, 7],
        batch_size=2,
    )
    wanted = pipeline.reconstruct(depth_pixels(part)).mean(1)
    assert not torch.allclose(wanted[0], wanted[1], atol=1e-2)
    assert torch.allclose(drawn, wanted[order], atol=1e-4)
    assert all(torch.equal(before[name], x) for name, x in pipeline.model.state_dict().items())


@pytest.mark.parametrize("objective", ["next_token", "diffusion", "transfusion"])
def test_samples_follow_from_their_seeds(objective):
    """Whatever draws; the batch around a picture changes nothing."""
    part = two_scenes()
    config = OneCycleConfig(num_steps=2, batch_size=2)
    pipeline = train_to_draw_depth(
        tiny_pipeline(objective), part, config, seed=0, show_progress=False
    )
    pictures = encode(pipeline, part.pixels)
    sampling = SamplingConfig(temperature=1.0)

    def draw(seeds: list[int], batch_size: int) -> torch.Tensor:
        return draw_depth(pipeline, pictures, sampling, seeds=seeds, batch_size=batch_size)

    first = draw([1, 2], 2)
    assert first.shape == (2, 16, 16)
    assert torch.allclose(draw([1, 2], 1), first, atol=1e-5)
    assert not torch.allclose(draw([3, 4], 2), first, atol=1e-3)
