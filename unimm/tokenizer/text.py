"""Text to token ids and back: byte-level BPE with the special tokens of documents.

Wraps a Hugging Face ``tokenizers`` file, ours or that of any language model. Byte-level means that
there is no unknown token: every text, emoji included, comes back exactly.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from unimm.document import SpecialIds

SPECIAL_TOKENS = {
    "pad": "<pad>",  # fills rows; never read, never predicted
    "bos": "<bos>",  # begins a document
    "eos": "<eos>",  # ends a document
    "boi": "<boi>",  # begins an image: predicted where the model decides to draw
    "eoi": "<eoi>",  # ends an image: appended, never predicted
    "null": "<null>",  # stands for dropped text in guidance
}

FILE = "tokenizer.json"


class TextTokenizer:
    """Text to ids and back, with the special tokens of documents.

    Args:
        tokenizer_json: content of a Hugging Face ``tokenizer.json`` that holds all of
            ``SPECIAL_TOKENS``.

    Raises:
        ValueError: a special token is missing.
    """

    def __init__(self, tokenizer_json: str) -> None:
        # This text is what is saved and hashed: the library writes the same tokenizer differently
        # from release to release.
        self._content: dict[str, Any] = json.loads(tokenizer_json)
        self._tokenizer = _tokenizer_from(self._content)
        # What a user types is text, also where it spells "<eos>".
        self._tokenizer.encode_special_tokens = True
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        missing = [token for token in SPECIAL_TOKENS.values() if token not in vocabulary]
        if missing:
            raise ValueError(
                f"tokenizer lacks the special tokens {' '.join(missing)}; "
                "read it with TextTokenizer.from_pretrained_file, which appends them"
            )
        ids = {name: vocabulary[token] for name, token in SPECIAL_TOKENS.items()}
        self._special_ids = SpecialIds(**ids, vocab_size=max(vocabulary.values()) + 1)

    def __reduce__(self) -> tuple[type["TextTokenizer"], tuple[str]]:
        # The library's own pickle forgets encode_special_tokens.
        return TextTokenizer, (json.dumps(self._content),)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int) -> "TextTokenizer":
        """Learn a byte-level BPE vocabulary.

        Args:
            texts: the text to learn from; the same text gives the same tokenizer.
            vocab_size: number of ids, special tokens and the 256 bytes included. Text that has
                fewer pairs worth merging gives a smaller vocabulary.

        Raises:
            ValueError: the vocabulary is too small to hold every byte.
        """
        smallest = 256 + len(SPECIAL_TOKENS)
        if vocab_size < smallest:
            raise ValueError(f"vocab_size must be at least {smallest}, got {vocab_size}")
        tokenizer = Tokenizer(models.BPE())
        # No prefix space: a sentence at the start of a part is stored as it is written.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer.to_str())

    @classmethod
    def from_pretrained_file(cls, path: str | Path) -> "TextTokenizer":
        """Read the ``tokenizer.json`` of a language model and append the special tokens it lacks.

        Old ids stay what they were; new ones follow the largest of them. Padding and truncation
        that the file may ask for are turned off.

        Args:
            path: the file, or the folder that holds it.
        """
        tokenizer = _tokenizer_from(_read(path))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.add_special_tokens(
            [
                AddedToken(token, special=True, normalized=False)
                for token in SPECIAL_TOKENS.values()
                if tokenizer.token_to_id(token) is None
            ]
        )
        return cls(tokenizer.to_str())

    @classmethod
    def load(cls, path: str | Path) -> "TextTokenizer":
        """Read a tokenizer that ``save`` wrote.

        Args:
            path: the file, or the folder that holds ``tokenizer.json``.

        Raises:
            ValueError: no such file, no tokenizer in it, or a special token is missing.
        """
        return cls(json.dumps(_read(path)))

    def save(self, folder: str | Path) -> Path:
        """Write ``tokenizer.json`` into a folder, which is made when missing; return its path."""
        path = Path(folder) / FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._content, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path

    def encode(self, text: str) -> list[int]:
        """Turn text into ids; no special token is added, and none can be spelled by the text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode many texts at once, on several threads."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Turn ids back into text; special tokens are skipped.

        A character can take several ids: decode the ids of a part together, since a part cut in
        the middle of a character ends in U+FFFD.
        """
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

    @property
    def vocab_size(self) -> int:
        """Rows that an embedding needs: the largest id plus one."""
        return self._special_ids.vocab_size

    @property
    def content_hash(self) -> str:
        """SHA-256 of the tokenizer's content, by which a model folder knows its tokenizer."""
        text = json.dumps(self._content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def special_ids(self) -> SpecialIds:
        """The special tokens' ids and the vocabulary's size, as the layout of documents asks."""
        return self._special_ids

    @property
    def pad_id(self) -> int:
        """Id that fills rows."""
        return self._special_ids.pad

    @property
    def bos_id(self) -> int:
        """Id that begins a document."""
        return self._special_ids.bos

    @property
    def eos_id(self) -> int:
        """Id that ends a document."""
        return self._special_ids.eos

    @property
    def boi_id(self) -> int:
        """Id that begins an image."""
        return self._special_ids.boi

    @property
    def eoi_id(self) -> int:
        """Id that ends an image."""
        return self._special_ids.eoi

    @property
    def null_id(self) -> int:
        """Id that stands for dropped text in guidance."""
        return self._special_ids.null


def _read(path: str | Path) -> dict[str, Any]:
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    if not path.is_file():
        raise ValueError(f"no text tokenizer at {path}; give a {FILE} or the folder that holds one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _tokenizer_from(content)
    except Exception as error:  # the library raises plain Exception
        raise ValueError(f"{path} is not a Hugging Face {FILE}: {error}") from error
    return content


def _tokenizer_from(content: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(content))
