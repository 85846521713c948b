"""Batches of worker processes reach the GPU whole."""

import pytest
import torch
from corpora import tiny_corpus
from helpers import SPECIAL, assert_same_batch, tiny_objective

from unimm.data.loader import Packing, RowStream, TrainBatches, iterate_batches
from unimm.objectives import OBJECTIVES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_pinned_batches_of_workers_reach_the_gpu_whole(tmp_path):
    packing = Packing(
        row_length=260,
        special=SPECIAL,
        objectives={name: tiny_objective(name) for name in OBJECTIVES},
        weights=dict.fromkeys(OBJECTIVES, 1.0),
    )
    corpus = tiny_corpus(tmp_path, num_documents=31, latent_dim=4)
    batches = TrainBatches(RowStream(corpus, packing), micro_rows=3)
    stream = iterate_batches(batches, start=0, num_workers=2, is_pinned=True)
    for number in range(4):
        arrived = next(stream)
        assert arrived.input_ids.is_pinned()
        moved = arrived.to("cuda")
        torch.cuda.synchronize()
        assert_same_batch(batches[number], moved.to("cpu"))
        torch.cuda.synchronize()
