import pytest
import torch
from pipelines import tiny_pipeline

import unimm
from unimm.probes.features import FeatureSpec
from unimm.probes.heads import LinearConfig


def test_fit_probe_in_one_call():
    """Dark and light pictures, told apart by the untrained tokenizer's encoder."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(40) % 2
    pixels = (labels * 1.2 - 0.6)[:, None, None, None] + 0.3 * torch.rand(
        40, 3, 16, 16, generator=generator
    )
    pipeline = tiny_pipeline("diffusion")
    spec = FeatureSpec(source="encoder", layer=0, pool="mean")
    config = LinearConfig(num_steps=100, learning_rates=(0.1,))
    fitted = unimm.fit_probe(pipeline, pixels[:30], labels[:30], spec, config=config)
    assert fitted.validation_accuracy == 1
    assert torch.equal(fitted.predict(pixels[30:]), labels[30:])
    with pytest.raises(ValueError, match="30 pictures need as many"):
        unimm.fit_probe(pipeline, pixels[:30], labels, spec)
