"""What a training step asks of the host: it never waits, and scales are embedded as on a CPU."""

from dataclasses import replace

import pytest
import torch

from unimm.evaluation.drawing_pairs import shrunk
from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.training.engine import choose_device
from unimm.training.step_speed import measured_step, picture_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("name", ["343M", "var-d16"])
def test_a_step_never_waits_for_the_device(name):
    step = measured_step(
        replace(shrunk(SIZES[name]), dim=64),  # heads of 32: sizes that the kernels take
        lambda p: [picture_rows(p, num_rows=2, documents=2)],
        device=choose_device("cuda"),
    )
    for _ in range(3):  # what is made once may wait
        step.run(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.run(0)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_scales_are_embedded_as_on_a_cpu():
    pipeline = random_pipeline(
        shrunk(SIZES["var-d16"]), device=torch.device("cpu"), dtype=torch.float32
    )
    slots = picture_rows(pipeline, num_rows=2, documents=2).slots["next_scale"]
    assert slots.tokens is not None
    tokens, tokenizer = slots.tokens, pipeline.image_tokenizer
    expected = tokenizer.inputs(tokens.scale_codes)
    tokenizer.to("cuda")
    with torch.no_grad():
        found = tokenizer.inputs(tokens.map(lambda x: x.to("cuda")).scale_codes)
    assert len(found) == len(expected) == len(tokens.scale_codes) - 1
    for ours, on_cpu in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.cpu(), on_cpu, atol=5e-3, rtol=5e-3)  # TF32
