"""Learn the text vocabulary from Storyworld's prose.

python tokenizers/train_text_tokenizer.py tokenizers/configs/text.yaml
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from rich.progress import track

from unimm.config import load_config
from unimm.data.world.splits import Split
from unimm.data.world.tasks import document_at
from unimm.tokenizer.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class TextTokenizerConfig:
    vocab_size: int = 1024
    """Number of ids, special tokens and the 256 bytes included."""
    num_documents: int = 20_000
    """How many of the world's documents to learn from."""
    seed: int = 0
    """Which documents those are."""
    output: str = "runs/text_tokenizer"
    """Folder that tokenizer.json is written into."""


def world_texts(config: TextTokenizerConfig) -> Iterator[str]:
    for index in track(range(config.num_documents), description="Reading documents"):
        document = document_at(config.seed, index, split=Split.TRAIN)
        yield from (part for part in document.parts if isinstance(part, str))


def main(config: TextTokenizerConfig) -> None:
    tokenizer = TextTokenizer.train(world_texts(config), vocab_size=config.vocab_size)
    path = tokenizer.save(config.output)
    sample = "Mia the fox finds a red balloon."
    ids = tokenizer.encode(sample)
    print(f"{tokenizer.vocab_size} ids -> {path} ({tokenizer.content_hash[:12]})")
    print(f"{sample!r} takes {len(ids)}: {[tokenizer.decode([token_id]) for token_id in ids]}")


if __name__ == "__main__":
    main(load_config(TextTokenizerConfig, sys.argv[1:]))
