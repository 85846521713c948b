import json
import pickle

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from unimm.document import SpecialIds
from unimm.tokenizer.text import TextTokenizer

TEXTS = [
    "Mia the fox finds a red balloon.",
    "Mia gives the red balloon to Tom. Tom is happy.",
    "Tom the blue bear walks over the snow. Night falls.",
] * 4


def special_ids(tokenizer):
    ids = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id]
    return [*ids, tokenizer.boi_id, tokenizer.eoi_id, tokenizer.null_id]


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(TEXTS, vocab_size=320)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Mia finds a balloon.",
        " leading and trailing \n",
        "two  spaces\tand a tab\r\n",
        "\u00e9t\u00e9 e\u0301 \u4f60\u597d \u0645\u0631\u062d\u0628\u0627",
        "\U0001f98a\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "spelled <eos> and <pad><boi>",
        "\x00\ufffd",
    ],
)
def test_every_text_comes_back_exactly(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(special_ids(tokenizer))
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


def test_batch_equals_single(tokenizer):
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_known_words_take_fewer_ids_than_bytes(tokenizer):
    assert len(tokenizer.encode("the red balloon")) <= 5


def test_vocabulary_is_filled_and_special_ids_come_first(tokenizer):
    assert tokenizer.vocab_size == 320
    assert special_ids(tokenizer) == list(range(6))
    assert tokenizer.special_ids == SpecialIds(
        pad=0, bos=1, eos=2, boi=3, eoi=4, null=5, vocab_size=320
    )


def test_decoding_skips_special_tokens(tokenizer):
    ids = [tokenizer.bos_id, *tokenizer.encode("Mia"), tokenizer.boi_id, tokenizer.eoi_id]
    assert tokenizer.decode([*ids, *tokenizer.encode(" runs"), tokenizer.eos_id]) == "Mia runs"


def test_same_texts_give_the_same_tokenizer(tokenizer):
    again = TextTokenizer.train(iter(TEXTS), vocab_size=320)
    other = TextTokenizer.train(TEXTS, vocab_size=300)
    assert again.content_hash == tokenizer.content_hash != other.content_hash


def test_saved_tokenizer_comes_back(tokenizer, tmp_path):
    path = tokenizer.save(tmp_path / "model")
    for source in (path, tmp_path / "model"):
        loaded = TextTokenizer.load(source)
        assert loaded.content_hash == tokenizer.content_hash
        assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
    path.write_text(json.dumps(json.loads(path.read_text())))  # another layout, the same content
    assert TextTokenizer.load(path).content_hash == tokenizer.content_hash


def test_pickled_tokenizer_still_takes_text_as_text(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.encode("<eos>") == tokenizer.encode("<eos>") != [tokenizer.eos_id]


def test_foreign_tokenizer_gets_the_missing_special_tokens(tmp_path):
    foreign = Tokenizer(models.BPE())
    foreign.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    foreign.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=["<|end|>", "<eos>"],
            initial_alphabet=alphabet,
            show_progress=False,
        ),
    )
    foreign.enable_truncation(3)
    foreign.enable_padding(length=8)
    foreign.save(str(tmp_path / "tokenizer.json"))

    tokenizer = TextTokenizer.from_pretrained_file(tmp_path / "tokenizer.json")
    assert tokenizer.eos_id == foreign.token_to_id("<eos>")
    new = sorted(set(special_ids(tokenizer)) - {tokenizer.eos_id})
    assert new == list(range(300, 305))
    assert tokenizer.vocab_size == 305
    foreign.no_truncation()
    foreign.no_padding()
    assert tokenizer.encode(TEXTS[0]) == foreign.encode(TEXTS[0]).ids
    assert TextTokenizer.load(tokenizer.save(tmp_path / "new")).special_ids == tokenizer.special_ids
    with pytest.raises(ValueError, match=r"lacks the special tokens <pad> <bos> <boi>"):
        TextTokenizer.load(tmp_path)


def test_bad_input_is_a_clear_error(tmp_path):
    with pytest.raises(ValueError, match="no text tokenizer at"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match="is not a Hugging Face tokenizer.json"):
        TextTokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="at least 262, got 100"):
        TextTokenizer.train(TEXTS, vocab_size=100)
