"""Documents that are longer than a row are cut at page bounds, by the rule in ``Corpus.cut``."""

import logging

import numpy as np
import pytest
import torch
from corpora import encode_texts
from helpers import SPECIAL, TOKENIZER, tiny_objective

from unimm.data.corpus import Corpus, PictureSizes
from unimm.data.fit import fit_rows
from unimm.data.loader import Packing, RowStream
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter, document_line
from unimm.document import layout_document
from unimm.objectives import OBJECTIVES

# t is a text of ten letters, T one of two hundred, i a drawn picture, g a given one.
DOCUMENTS = ("ti", "titititi", "ittiTigtt", "T", "gititi")


@pytest.fixture
def corpus(tmp_path):
    manifest = ShardManifest(
        tokenizer_hash="x",
        codebook_size=24,
        grid_size=(4, 4),
        split="train",
        seed=0,
        documents_per_shard=len(DOCUMENTS),
        schedules=TOKENIZER.schedules,
        latent_dim=4,
    )
    lines, count = [], 0
    for index, letters in enumerate(DOCUMENTS):
        parts = []
        for place, letter in enumerate(letters):
            if letter in "tT":
                parts.append({"text": f"{place}{'x' * (9 if letter == 't' else 199)}"})
            else:
                parts.append({"image": count, "is_drawn": letter == "i"})
                count += 1
        lines.append(document_line(parts, index=index, truth={"letters": letters}))
    images = {name: manifest.blank(name, count) for name in manifest.schedules}
    for tokens in images.values():
        assert tokens.codes is not None
        tokens.codes.copy_(torch.arange(count)[:, None, None].expand(-1, 4, 4) % 24)
    writer = ShardWriter(tmp_path, manifest=manifest)
    writer.write(0, documents=b"".join(lines), num_documents=len(lines), images=images)
    writer.finish(1)
    return Corpus(ShardFolder(tmp_path), encode_texts=encode_texts)


def packing(names=("next_token",), row_length=80):
    return Packing(
        row_length=row_length,
        special=SPECIAL,
        objectives={name: tiny_objective(name) for name in names},
        weights={name: 1.0 for name in names},
    )


def letters(corpus, number):
    found = ""
    for part in corpus.document(number).parts:
        if part.text_ids is None:
            found += "i" if part.is_drawn else "g"
        else:
            found += "t" if len(part.text_ids) == 10 else "T"
    return found


def test_documents_are_cut_before_a_text_that_follows_a_picture(corpus, caplog):
    """A page "ti" has 10 + 18 positions: two of them and ``<bos>`` fit a row of 80."""
    with caplog.at_level(logging.WARNING):
        fit_rows(corpus, packing())
    found = [letters(corpus, number) for number in range(corpus.num_documents)]
    assert found == ["ti", "titi", "titi", "itti", "tt", "giti", "ti"]
    is_open = [corpus.document(number).is_open for number in range(corpus.num_documents)]
    assert is_open == [False, True, False, True, False, True, False]
    assert "4 documents are longer than a row of 80: cut into 6; 2 pages" in caplog.text
    whole = [truth["letters"] for truth in corpus.truths]
    assert whole == [DOCUMENTS[n] for n in (0, 1, 1, 2, 2, 4, 4)]
    assert corpus.sources.tolist() == [0] * 7


def test_pieces_keep_their_own_texts_and_pictures(corpus):
    before = [corpus.document(n) for n in range(corpus.num_documents)]
    fit_rows(corpus, packing())
    for number, (origin, first) in {2: (1, 4), 4: (2, 7), 6: (4, 4)}.items():
        piece = corpus.document(number).parts
        for ours, theirs in zip(piece, before[origin].parts[first:], strict=True):
            if ours.text_ids is not None:
                assert torch.equal(ours.text_ids, theirs.text_ids)  # pyright: ignore
            else:
                assert torch.equal(ours.tokens.codes, theirs.tokens.codes)  # pyright: ignore


@pytest.mark.parametrize("names", [(name,) for name in OBJECTIVES] + [tuple(OBJECTIVES)])
def test_every_piece_fits_for_every_objective(corpus, names):
    settings = packing(names, row_length=130)
    fit_rows(corpus, settings)
    for objective in settings.objectives.values():
        lengths = [
            len(
                layout_document(corpus.document(n, schedule=objective.schedule), objective, SPECIAL)
            )
            for n in range(corpus.num_documents)
        ]
        sizes = PictureSizes.of(objective, corpus.blank(objective.schedule), SPECIAL)
        assert corpus.lengths(sizes).tolist() == lengths
        assert max(lengths) <= 130
    stream = RowStream(corpus, settings)
    shown = [number for row in stream.rows_of(0) for number in row.documents]
    assert sorted(shown) == list(range(corpus.num_documents))
    assert 0 < stream.fill_rate() <= 1


def test_what_fits_is_left_alone(corpus):
    bounds = corpus._bounds
    fit_rows(corpus, packing(row_length=400))
    assert corpus._bounds is bounds and corpus.num_documents == len(DOCUMENTS)


def test_nothing_fits(corpus):
    with pytest.raises(ValueError, match="no document fits a row of 12 positions"):
        fit_rows(corpus, packing(row_length=12))
    assert np.all(corpus._bounds == 0)
