"""Made-up batches that training steps are timed on."""

import torch

from unimm.evaluation.drawing_pairs import shrunk
from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.training.engine import choose_device
from unimm.training.step_speed import interleaved_rows, measured_step, picture_rows


def pipeline_of(name: str):
    return random_pipeline(shrunk(SIZES[name]), device=torch.device("cpu"))


def test_rows_of_pictures_have_no_padding():
    for name, length in (("343M", 2 + 16), ("var-d16", 2 + 21)):
        batch = picture_rows(pipeline_of(name), num_rows=2, documents=3)
        assert batch.input_ids.shape == (2, 3 * length)
        assert [len(row) for row in batch.document_indices] == [3, 3]


def test_interleaved_rows_are_filled_with_uneven_documents():
    batch = interleaved_rows(pipeline_of("343M"), num_rows=3, row_length=256)
    assert batch.input_ids.shape == (3, 256)
    counts = [len(row) for row in batch.document_indices]
    assert min(counts) >= 1 and sum(counts) > 3
    lengths = batch.cu_seqlens.diff()
    assert len(set(lengths[lengths > 0].tolist())) > 3


def test_a_measured_step_moves_the_weights():
    found = []
    step = measured_step(
        shrunk(SIZES["343M"]),
        lambda p: found.append(p) or [picture_rows(p, num_rows=1, documents=2)],
        device=choose_device("cpu"),
    )
    before = found[0].model.text_embedding.weight.clone()
    step.run(0)
    assert step.flops[0] > 0
    assert not torch.equal(before, found[0].model.text_embedding.weight)
