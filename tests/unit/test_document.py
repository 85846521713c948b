import numpy as np
import pytest
import torch
from helpers import SPEC, SPECIAL, random_image, random_story

from unimm.document import (
    IGNORE,
    NULL_CODE,
    Document,
    Dropped,
    ImageTokens,
    Part,
    layout_document,
    pack,
    sample_dropped,
)
from unimm.objectives.next_token import NextTokenConfig

CONFIG = NextTokenConfig()
NUM_CODES = SPEC.grid_size**2


def text(*ids: int) -> Part:
    return Part(text_ids=torch.tensor(ids, dtype=torch.int64))


def picture(seed: int = 0, **options) -> Part:
    return Part(tokens=random_image(torch.Generator().manual_seed(seed)), **options)


def layout(*parts: Part, is_open: bool = False, dropped: Dropped | None = None):
    document = Document(parts=parts, is_open=is_open)
    return layout_document(document, CONFIG, SPECIAL, dropped=dropped)


def test_labels_are_shifted_once():
    given = picture()
    assert given.tokens is not None and given.tokens.codes is not None
    codes = given.tokens.codes.flatten().tolist()
    made = layout(text(7, 8), given, text(9))
    s = SPECIAL
    assert made.input_ids[:4].tolist() == [s.bos, 7, 8, s.boi]
    assert made.input_ids[-2:].tolist() == [s.eoi, 9]
    assert made.code_ids[4 : 4 + NUM_CODES].tolist() == codes
    # Each position predicts what comes next; the last code predicts nothing, <eoi> is appended.
    assert made.labels.tolist() == [7, 8, s.boi, *codes, IGNORE, 9, s.eos]
    assert made.head_index["next_token"].tolist() == list(range(3, 3 + NUM_CODES))
    assert made.head_index["text"].tolist() == [0, 1, 2, 4 + NUM_CODES, 5 + NUM_CODES]


def test_positions_follow_text_rows_and_columns():
    made = layout(text(7, 8), picture(), text(9))
    assert made.position_ids[:4].tolist() == [[i] * 3 for i in range(4)]
    first, last = made.position_ids[4], made.position_ids[3 + NUM_CODES]
    assert first.tolist() == [4, 4, 4]
    assert last.tolist() == [4, 7, 7]  # time stays, row and column move by three
    assert made.position_ids[4 + NUM_CODES :].tolist() == [[8] * 3, [9] * 3]


def test_open_document_ends_in_its_picture():
    made = layout(text(7), picture(), is_open=True)
    assert len(made) == 3 + NUM_CODES
    assert SPECIAL.eoi not in made.input_ids
    assert made.labels[-1] == IGNORE  # no <eos>


def test_given_picture_is_read_but_not_learned():
    made = layout(text(7), picture(is_drawn=False), text(8))
    assert SPECIAL.boi in made.input_ids and SPECIAL.boi not in made.labels
    assert made.head_index["next_token"].size == 0
    assert made.images["next_token"] == ()


def test_dropped_parts_become_null_and_teach_nothing():
    parts = (text(7, 8), picture(0), text(9, 10), picture(1))
    whole = layout(*parts)
    made = layout(*parts, dropped=Dropped(parts=frozenset({0, 1})))
    assert np.array_equal(made.position_ids, whole.position_ids)
    assert made.input_ids[1:3].tolist() == [SPECIAL.null] * 2
    assert made.labels[:4].tolist() == [IGNORE] * 4
    assert made.code_ids[4 : 4 + NUM_CODES].tolist() == [NULL_CODE] * NUM_CODES
    assert len(made.images["next_token"]) == 1  # the second is still learned
    after = 4 + NUM_CODES
    assert np.array_equal(made.labels[after:], whole.labels[after:])


def test_dropping_follows_its_rate():
    document = random_story(0, num_pages=3)
    generator = torch.Generator().manual_seed(0)
    found = [sample_dropped(document, generator, 0.1).parts for _ in range(2000)]
    all_texts = sum(parts == {0, 2, 4} for parts in found) / 2000
    assert all_texts == pytest.approx(0.1, abs=0.03)
    assert not any(5 in parts for parts in found)  # nothing follows the last picture
    single = sum(1 in parts for parts in found) / 2000
    assert single == pytest.approx(0.09, abs=0.03)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "is empty"),
        ((text(7, SPECIAL.vocab_size),), "text id 40 is out of range: the vocabulary has 40"),
        ((text(-1),), "text id -1 is out of range"),
        ((Part(text="raw"),), "raw text"),
        ((Part(pixels=torch.zeros(3, 4, 4)),), "raw picture"),
    ],
)
def test_bad_documents_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        layout(*parts)


def test_a_part_is_one_thing():
    with pytest.raises(ValueError, match="got nothing"):
        Part()
    with pytest.raises(ValueError, match=r"\['text', 'pixels'\]"):
        Part(text="x", pixels=torch.zeros(3, 4, 4))


def test_pack_places_documents_and_slots():
    layouts = [layout_document(random_story(i, index=i), CONFIG, SPECIAL) for i in range(3)]
    batch = pack(
        [layouts[:2], layouts[2:]], row_length=128, heads=("other", "next_token"), pad_id=0
    )
    first, second = len(layouts[0]), len(layouts[1])
    assert batch.document_ids[0, :first].eq(0).all()
    assert batch.document_ids[0, first : first + second].eq(1).all()
    assert batch.document_ids[0, first + second :].eq(2).all()  # padding
    bounds = [0, first, first + second, 128, 128, 128 + len(layouts[2]), 256]
    assert sorted(set(batch.cu_seqlens.tolist())) == sorted(set(bounds))
    slots = batch.slots["next_token"]
    assert slots.tokens is not None and slots.tokens.codes is not None
    flat = batch.labels.flatten()[slots.index]
    assert torch.equal(flat, slots.tokens.codes[slots.image_ids[::NUM_CODES]].flatten())
    assert batch.head_ids.flatten()[slots.index].unique().tolist() == [3]
    assert batch.slots["other"].tokens is None and len(batch.slots["other"].index) == 0
    assert len(set(slots.seeds)) == len(slots.seeds) == 6
    assert batch.document_indices == ((0, 1), (2,))


def test_seeds_depend_on_run_document_and_picture_only():
    def seeds(seed: int, rows: list[list[int]]) -> list[int]:
        made = [
            [layout_document(random_story(i, index=i), CONFIG, SPECIAL) for i in row]
            for row in rows
        ]
        return list(
            pack(made, row_length=128, heads=("next_token",), seed=seed).slots["next_token"].seeds
        )

    assert seeds(0, [[5, 3]]) == seeds(0, [[5], [3]]) == [*seeds(0, [[5]]), *seeds(0, [[3]])]
    assert not set(seeds(0, [[5]])) & set(seeds(1, [[5]]))


@pytest.mark.parametrize(
    ("row_length", "options", "message"),
    [
        (20, {}, "longer than a row of 20"),
        (60, {}, "do not fit a row of 60"),
        (128, {"max_documents": 1}, "2 documents, max_documents is 1"),
    ],
)
def test_rows_that_do_not_fit_are_refused(row_length, options, message):
    layouts = [layout_document(random_story(i), CONFIG, SPECIAL) for i in range(2)]
    with pytest.raises(ValueError, match=message):
        pack([layouts], row_length=row_length, heads=("next_token",), **options)


def test_pictures_of_different_size_are_not_stacked():
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="must share a code grid"):
        ImageTokens.stack([random_image(generator, 4), random_image(generator, 5)])
