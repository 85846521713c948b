"""Depth drawn and triangles rasterised on a GPU."""

from dataclasses import replace

import pytest
import torch
from depth_scenes import two_scenes
from pipelines import tiny_pipeline

from unimm.data.labelled.rasterise import rasterise
from unimm.nn.sampling import SamplingConfig
from unimm.probes.cache import FeaturesInMemory
from unimm.probes.dense import OneCycleConfig
from unimm.probes.depth_sequence import (
    depth_pixels,
    draw_depth,
    encode,
    train_to_draw_depth,
)
from unimm.probes.sources import pipeline_features
from unimm.probes.spec import FeatureSpec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("objective", ["next_token", "next_scale", "masked"])
def test_depth_is_learned_and_drawn_on_the_gpu(objective):
    """Learned in mixed precision, drawn from recorded steps."""
    part, tiny = two_scenes(), tiny_pipeline(objective)
    tokenizer = tiny.image_tokenizer.to("cuda")
    model = tiny.model.to("cuda")
    model.bind(tokenizer)
    pipeline = replace(tiny, model=model, image_tokenizer=tokenizer)
    config = OneCycleConfig(num_steps=200, batch_size=8, learning_rate=3e-3)
    trained = train_to_draw_depth(pipeline, part, config, seed=0, show_progress=False)
    drawn = draw_depth(
        trained,
        encode(trained, part.pixels),
        SamplingConfig(temperature=0.0),
        seeds=[5, 6],
        batch_size=2,
    )
    wanted = pipeline.reconstruct(depth_pixels(part).to("cuda")).mean(1).cpu()
    assert torch.allclose(drawn, wanted, atol=1e-2)


def test_features_stay_on_the_gpu_and_are_those_of_the_cpu():
    """Up to bfloat16's rounding."""
    tiny, part = tiny_pipeline("diffusion"), two_scenes()
    model = tiny_pipeline("diffusion").model.to("cuda")
    tokenizer = tiny_pipeline("diffusion").image_tokenizer.to("cuda")
    model.bind(tokenizer)
    moved = replace(tiny, model=model, image_tokenizer=tokenizer)
    features = FeaturesInMemory(batch_size=3, show_progress=False)
    spec = FeatureSpec(timestep=0.3, num_noises=2)
    wanted, found = (
        features.maps(pipeline_features(x), part.pixels, spec, (0, -1)) for x in (tiny, moved)
    )
    for a, b in zip(wanted, found, strict=True):
        assert b.is_cuda and b.dtype == torch.float16
        assert float((a - b.cpu()).float().norm() / a.float().norm()) < 0.03


def test_triangles_are_drawn_as_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(200, 3, 3, generator=generator) * torch.tensor([64.0, 64, 4]) + 0.1
    host, device = rasterise(corners, 64), rasterise(corners.cuda(), 64)
    same = host.triangles == device.triangles.cpu()
    assert float(same.float().mean()) > 0.999  # rounding may move an edge
    near = torch.isclose(host.depth[same], device.depth.cpu()[same], rtol=1e-3)
    assert float(near.float().mean()) > 0.999
