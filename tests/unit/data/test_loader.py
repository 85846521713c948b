"""What a step trains on is a function of its number alone."""

from typing import Any

import pytest
import torch
from corpora import encode_texts, tiny_corpus
from helpers import SPECIAL, assert_same_batch, tiny_objective

from unimm.data.corpus import PictureSizes, copied_name_mask
from unimm.data.loader import (
    Packing,
    RowStream,
    TrainBatches,
    evaluation_batches,
    first_fit,
    iterate_batches,
)
from unimm.document import layout_document
from unimm.objectives import OBJECTIVES


def packing(**kwargs):
    settings: dict[str, Any] = dict(
        row_length=160,
        special=SPECIAL,
        objectives={"next_token": OBJECTIVES["next_token"]()},
        weights={"next_token": 1.0},
        drop_rate=0.3,
        seed=3,
    )
    return Packing(**(settings | kwargs))


def take(corpus, numbers, *, num_workers=0, micro_rows=2, **kwargs):
    batches = TrainBatches(RowStream(corpus, packing()), micro_rows=micro_rows, **kwargs)
    stream = iterate_batches(batches, start=numbers[0], num_workers=num_workers)
    return [next(stream) for _ in numbers]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_lengths_equal_those_of_the_layout(tmp_path, name):
    corpus, objective = tiny_corpus(tmp_path, num_documents=13), tiny_objective(name)
    example = corpus.blank(objective.schedule)
    lengths = corpus.lengths(PictureSizes.of(objective, example, SPECIAL))
    found = [
        len(layout_document(corpus.document(i, schedule=objective.schedule), objective, SPECIAL))
        for i in range(corpus.num_documents)
    ]
    assert lengths.tolist() == found


def test_an_epoch_holds_every_document_once(tmp_path):
    corpus = tiny_corpus(tmp_path, num_documents=37)
    stream = RowStream(corpus, packing())
    seen = [number for row in stream.rows_of(1) for number in row.documents]
    assert sorted(seen) == list(range(37))
    assert seen != [number for row in stream.rows_of(2) for number in row.documents]
    assert 0.5 < stream.fill_rate() <= 1


def test_rows_go_through_epochs_without_a_gap(tmp_path):
    stream = RowStream(tiny_corpus(tmp_path, num_documents=7), packing())
    epochs = [row for epoch in range(5) for row in stream.rows_of(epoch)]
    fresh = RowStream(stream.corpus, packing())
    backwards = [fresh[number] for number in reversed(range(len(epochs)))]
    assert backwards[::-1] == epochs


def test_workers_change_nothing(tmp_path):
    corpus = tiny_corpus(tmp_path)
    numbers = range(4, 10)
    for a, b in zip(take(corpus, numbers), take(corpus, numbers, num_workers=2), strict=True):
        assert_same_batch(a, b)


def test_resume_continues_the_stream(tmp_path):
    corpus = tiny_corpus(tmp_path)
    whole = take(corpus, range(8))
    for a, b in zip(whole[5:], take(corpus, range(5, 8)), strict=True):
        assert_same_batch(a, b)


def test_a_step_is_the_same_however_it_is_cut(tmp_path):
    corpus = tiny_corpus(tmp_path)
    whole = take(corpus, [1], micro_rows=4)[0]
    micro = take(corpus, range(4, 8), micro_rows=1)
    ranks = [take(corpus, [1], micro_rows=2, rank=rank, world_size=2)[0] for rank in range(2)]
    for cut in (micro, ranks):
        assert torch.equal(whole.input_ids, torch.cat([batch.input_ids for batch in cut]))
        assert torch.equal(whole.code_ids, torch.cat([batch.code_ids for batch in cut]))
        seeds = [seed for batch in cut for seed in batch.slots["next_token"].seeds]
        assert list(whole.slots["next_token"].seeds) == seeds


def test_another_epoch_hides_other_parts(tmp_path):
    corpus = tiny_corpus(tmp_path, num_documents=3)
    stream = RowStream(corpus, packing(row_length=400))
    batches = TrainBatches(stream, micro_rows=len(stream.rows_of(0)))
    nulls = {int((batches[n].input_ids == SPECIAL.null).sum()) for n in range(8)}
    assert len(nulls) > 2


def test_weights_choose_the_objective_of_a_document(tmp_path):
    heads = {"next_token": OBJECTIVES["next_token"](), "other": OBJECTIVES["next_token"]()}
    corpus = tiny_corpus(tmp_path, num_documents=200)
    stream = RowStream(corpus, packing(objectives=heads, weights={"next_token": 3.0, "other": 1.0}))
    chosen = [head for row in stream.rows_of(0) for head in row.heads]
    assert 25 < chosen.count("other") < 75


def test_a_schedule_that_the_shards_lack(tmp_path):
    corpus = tiny_corpus(tmp_path, num_documents=3)
    with pytest.raises(ValueError, match=r"schedules single, 1-2-4, but an objective draws by 1-4"):
        corpus.document(0, schedule="1-4")


def test_document_longer_than_the_row(tmp_path):
    with pytest.raises(ValueError, match=r"positions, longer than a row of 40: raise data.row_len"):
        RowStream(tiny_corpus(tmp_path), packing(row_length=40))


def test_id_out_of_range(tmp_path):
    from unimm.data.corpus import Corpus
    from unimm.data.shards import ShardFolder

    tiny_corpus(tmp_path)
    corpus = Corpus(ShardFolder(tmp_path), encode_texts=lambda texts: [[40] for _ in texts])
    with pytest.raises(ValueError, match="text id 40 is out of range"):
        TrainBatches(RowStream(corpus, packing(drop_rate=0.0)), micro_rows=1)[0]


def test_first_fit_keeps_limits():
    lengths = torch.randint(10, 60, (300,), generator=torch.Generator().manual_seed(0)).numpy()
    rows = first_fit(lengths, limit=100, max_items=3)
    assert sorted(item for row in rows for item in row) == list(range(300))
    assert all(len(row) <= 3 and lengths[row].sum() <= 100 for row in rows)
    assert lengths.sum() / (100 * len(rows)) > 0.85


def test_copied_names_are_marked(tmp_path):
    corpus = tiny_corpus(tmp_path, num_documents=12)
    names = [encode_texts(["mia", " mia"])]
    marks = [copied_name_mask(corpus.document(i), names) for i in range(corpus.num_documents)]
    # Document 11 is an edit, 3 is a story of one page, 6 too; none mentions a name again.
    assert not any(marks[3])
    batches = evaluation_batches(corpus, packing(drop_rate=0.0), micro_rows=2, marks=marks)
    for batch, flags in batches:
        assert len(flags) == len(batch.slots["text"].index)
    assert sum(int(flags.sum()) for _, flags in batches) == sum(map(sum, marks))


def test_a_name_is_copied_only_after_its_first_part():
    from unimm.document import Document, Part

    parts = [Part(text_ids=torch.tensor(ids)) for ids in ([7, 8, 7, 8], [9, 7, 8], [7, 8])]
    names = [[[7, 8]], [[9]]]
    marks = copied_name_mask(Document(parts=tuple(parts)), names)
    assert marks == [False] * 4 + [False, True, True] + [True, True] + [False]
