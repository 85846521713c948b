"""Mixtures of folders: what an epoch shows, by weight, and that it is a function of its number."""

from collections import Counter

import numpy as np
import pytest
from corpora import encode_texts, write_shards

from unimm.data.corpus import Corpus
from unimm.data.mixture import epoch_order, write_mixture
from unimm.data.shards import ShardFolder

SOURCES = np.repeat([0, 1, 2], [100, 31, 7])


def order(epoch, weights=(1.0, 0.5, 2.0), seed=0):
    return epoch_order(SOURCES, weights, seed=seed, epoch=epoch)[0]


def test_equal_weights_show_everything_once():
    assert sorted(order(3, weights=(2.0, 2.0, 2.0))) == list(range(len(SOURCES)))
    assert order(0, (1.0,) * 3).tolist() != order(1, (1.0,) * 3).tolist()


def test_weights_say_how_often_a_document_is_seen():
    num_epochs = 8
    seen = Counter(number for epoch in range(num_epochs) for number in order(epoch))
    for source, times in enumerate((4, 2, 8)):  # of 8 epochs, as 1 : 0.5 : 2
        own = [number for number, other in enumerate(SOURCES) if other == source]
        assert {seen[number] for number in own} == {times}


def test_within_an_epoch_weights_are_kept_to_a_document():
    for epoch in range(5):
        counts = np.bincount(SOURCES[order(epoch)])
        assert counts[2] == 7 and counts[0] == 50 and counts[1] in (7, 8)


def test_an_epoch_is_a_function_of_seed_and_number():
    assert order(5).tolist() == order(5).tolist()
    assert order(5).tolist() != order(5, seed=1).tolist()
    sources = SOURCES[order(0)]
    assert len(set(sources[:20])) > 1, "sources are shuffled among each other"


def test_a_source_may_be_empty():
    found = epoch_order(np.array([0, 0, 2]), (1.0, 5.0, 0.5), seed=0, epoch=1)[0]
    assert sorted(found) in ([0, 1], [0, 1, 2])


@pytest.fixture
def mixture(tmp_path):
    write_shards(tmp_path / "mix/a", num_documents=12, seed=1)
    write_shards(tmp_path / "mix/b", num_documents=7, seed=2)
    write_mixture(tmp_path / "mix", {"a": 1.0, "b": 3.0})
    return tmp_path / "mix"


def test_folders_become_one(mixture):
    folder = ShardFolder(mixture, tokenizer_hash="test")
    assert folder.weights == (1.0, 3.0) and folder.sources == [0, 0, 0, 1, 1]
    assert folder.totals.documents == folder.num_documents == 19
    corpus = Corpus(folder, encode_texts=encode_texts)
    assert corpus.sources.tolist() == [0] * 12 + [1] * 7
    alone = Corpus(ShardFolder(mixture / "b"), encode_texts=encode_texts)
    ours, theirs = corpus.document(12 + 5).parts[-1], alone.document(5).parts[-1]
    assert ours.tokens is not None and theirs.tokens is not None
    assert (ours.tokens.codes == theirs.tokens.codes).all()  # pyright: ignore


def test_a_limit_takes_as_many_of_each_source(mixture):
    corpus = Corpus(ShardFolder(mixture), encode_texts=encode_texts, limit=9)
    assert corpus.sources.tolist() == [0] * 5 + [1] * 5


def test_folders_that_do_not_fit_together(mixture, tmp_path):
    write_shards(mixture / "b2", num_documents=7, tokenizer_hash="other")
    write_mixture(mixture, {"a": 1.0, "b2": 1.0})
    with pytest.raises(ValueError, match="tokenizer_hash test and, in .*b2, with other"):
        ShardFolder(mixture)


@pytest.mark.parametrize("content", ("[]", "{", '{"weights": {}}', '{"weights": {"a": 0}}'))
def test_a_mixture_file_that_is_none(mixture, content):
    (mixture / "mixture.json").write_text(content)
    with pytest.raises(ValueError, match=r"mixture\.json"):
        ShardFolder(mixture)
