"""Batches equal the layout contract written out plainly, and arrive as they left."""

import pickle
from dataclasses import replace

import pytest
import torch
from corpora import tiny_corpus
from helpers import SPECIAL, assert_same_batch, batch_leaves, tiny_objective
from plain_layout import plain_document

from unimm.data.loader import Packing, RowStream, TrainBatches, iterate_batches
from unimm.document import (
    HEAD_NONE,
    HEAD_TEXT,
    IGNORE,
    NO_CODE,
    mix_seed,
    sample_dropped,
)
from unimm.objectives import OBJECTIVES

ROW, ROWS, SEED, RATE = 260, 3, 3, 0.3


def batches_of(folder, *names: str) -> TrainBatches:
    """Shards of codes, a pyramid and latents: stories, open pairs and given pictures."""
    packing = Packing(
        row_length=ROW,
        special=SPECIAL,
        objectives={name: tiny_objective(name) for name in names},
        weights=dict.fromkeys(names, 1.0),
        drop_rate=RATE,
        seed=SEED,
    )
    corpus = tiny_corpus(folder, num_documents=31, latent_dim=4)
    return TrainBatches(RowStream(corpus, packing), micro_rows=ROWS)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_is_what_the_contract_says(tmp_path, name):
    batches = batches_of(tmp_path, name)
    corpus, objective = batches.stream.corpus, tiny_objective(name)
    padding = dict(
        input_ids=SPECIAL.pad,
        code_ids=NO_CODE,
        labels=IGNORE,
        position_ids=(0, 0, 0),
        segment_ids=0,
        is_context=True,
        head=None,
    )
    for number in range(4):
        batch = batches[number]
        images, flat = [], []
        for b in range(ROWS):
            row = batches.stream[number * ROWS + b]
            places = []
            for d, index in enumerate(row.documents):
                visit = row.epoch * corpus.num_documents + index
                document = corpus.document(index, visit=visit, schedule=objective.schedule)
                generator = torch.Generator().manual_seed(mix_seed(SEED, visit, -1))
                hidden = sample_dropped(document, generator, RATE).parts
                made = plain_document(document, objective, SPECIAL, hidden)
                places += [place | {"document_ids": d} for place in made]
                drawn = [i for i, p in enumerate(document.parts) if p.tokens and p.is_drawn]
                images += [document.parts[i].tokens for i in drawn if i not in hidden]
            rest = {"document_ids": len(row.documents)}
            places += [padding | rest | {"block_ids": i} for i in range(len(places), ROW)]
            flat += places
        for field in flat[0].keys() - {"head"}:
            found = getattr(batch, field).flatten(0, 1).tolist()
            assert found == [
                [*place[field]] if field == "position_ids" else place[field] for place in flat
            ], field
        numbers = {None: HEAD_NONE, "text": HEAD_TEXT, name: HEAD_TEXT + 1}
        heads = [numbers[p["head"]] if p["labels"] != IGNORE else HEAD_NONE for p in flat]
        assert batch.head_ids.flatten().tolist() == heads
        for head in ("text", name):
            places = [i for i, number in enumerate(heads) if number == numbers[head]]
            assert batch.slots[head].index.tolist() == places
        tokens = batch.slots[name].tokens
        for k in range(len(images)):
            assert tokens is not None
            for one in ("codes", "latents"):
                stacked, own = getattr(tokens, one), getattr(images[k], one)
                assert stacked is None or torch.equal(stacked[k], own)
            for stacked, own in zip(tokens.scale_codes, images[k].scale_codes, strict=False):
                assert torch.equal(stacked[k], own)


@pytest.mark.parametrize("names", [*((name,) for name in OBJECTIVES), tuple(OBJECTIVES)])
def test_a_batch_arrives_as_it_left(tmp_path, names):
    batches = batches_of(tmp_path, *names)
    for number in range(3):
        batch = batches[number]
        arrived = pickle.loads(pickle.dumps(batch))
        assert_same_batch(batch, arrived)
        assert_same_batch(batch, arrived.to("cpu"))
        tensors = [
            x for x in batch_leaves(arrived.to("cpu")).values() if isinstance(x, torch.Tensor)
        ]
        assert len({x.untyped_storage().data_ptr() for x in tensors}) == 1


def test_workers_send_every_tensor(tmp_path):
    batches = batches_of(tmp_path, *OBJECTIVES)
    stream = iterate_batches(batches, start=0, num_workers=1)
    for number in range(3):
        assert_same_batch(batches[number], next(stream))


def test_moving_a_moved_batch_copies_nothing(tmp_path):
    batch = batches_of(tmp_path, "next_token")[0].to("cpu")
    assert batch.to("cpu").input_ids.data_ptr() == batch.input_ids.data_ptr()
    # One tensor replaced: the buffer is made anew rather than half of it trusted.
    changed = replace(batch, labels=batch.labels + 1)
    assert_same_batch(changed, changed.to("cpu"))
