"""Small encoded shards for the tests of loader and training."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from helpers import TOKENIZER, tiny_image_tokenizer

from unimm.checkpoint import image_tokenizer_hash
from unimm.checkpoint.folder import load_image_tokenizer, save_image_tokenizer
from unimm.config import load_config
from unimm.data.corpus import Corpus
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter, document_line
from unimm.document import ImageTokens
from unimm.model import ModelConfig
from unimm.nn.transformer import BackboneConfig
from unimm.pipeline import SHIPPED
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.text import TextTokenizer
from unimm.training.config import DataConfig, LoggingConfig, OptimizerConfig, TrainConfig
from unimm.training.planner import Planner
from unimm.training.resume import CHOICES

TEXTS = ("mia sees a cup.", "then she runs home.", "tom is glad.", "mia and tom sleep.")


def encode_texts(texts):
    """Toy tokenizer: one id a character, none special (ids 6 to 39)."""
    return [[6 + ord(letter) % 34 for letter in text] for text in texts]


def write_shards(
    folder: Path,
    *,
    num_documents: int = 12,
    seed: int = 0,
    side: int = 4,
    kinds: str = "sce",
    tokenizer_hash: str = "test",
    latent_dim: int = 0,
) -> Path:
    """Stories (s), open caption pairs (c) and edits of a given picture (e) with random codes."""
    manifest = ShardManifest(
        tokenizer_hash=tokenizer_hash,
        codebook_size=24,
        grid_size=(side, side),
        split="train",
        seed=seed,
        documents_per_shard=5,
        schedules=TOKENIZER.schedules,
        latent_dim=latent_dim,
    )
    writer = ShardWriter(folder, manifest=manifest)
    generator = torch.Generator().manual_seed(seed)
    for number in range(-(-num_documents // 5)):
        lines, count = [], 0
        for index in range(number * 5, min(number * 5 + 5, num_documents)):
            kind = kinds[index % len(kinds)]
            text = TEXTS[index % len(TEXTS)]
            if kind == "s":
                parts = []
                for page in range(1 + index % 3):
                    parts += [{"text": TEXTS[page]}, {"image": count, "is_drawn": True}]
                    count += 1
            elif kind == "c":
                parts = [{"text": text}, {"image": count, "is_drawn": True}]
                count += 1
            else:
                parts = [{"image": count, "is_drawn": False}, {"text": text}]
                parts += [{"image": count + 1, "is_drawn": True}]
                count += 2
            lines.append(
                document_line(
                    parts,
                    index=index,
                    kind=kind,
                    is_open=kind == "c",
                    truth={"characters": [{"name": "mia"}]},
                )
            )
        codes = torch.randint(24, (count, side, side), generator=generator)
        # Latents that follow from the codes, so that there is something to learn.
        latents = (codes[:, None] / 12 - 1).expand(-1, max(latent_dim, 1), -1, -1)
        images = {
            schedule: ImageTokens(
                codes=codes,
                scale_codes=tuple(
                    torch.randint(24, blank.shape, generator=generator)
                    for blank in manifest.blank(schedule, count).scale_codes
                ),
                latents=latents if latent_dim else None,
            )
            for schedule in manifest.schedules
        }
        writer.write(number, documents=b"".join(lines), num_documents=len(lines), images=images)
    writer.finish(-(-num_documents // 5))
    return folder


def tiny_corpus(folder: Path, **kwargs) -> Corpus:
    """The same, read."""
    return Corpus(ShardFolder(write_shards(folder, **kwargs)), encode_texts=encode_texts)


def tiny_tokenizers(folder: Path) -> str:
    """Write untrained tokenizers (an image one of 24 codes); give the image one's hash."""
    tokenizer = tiny_image_tokenizer()
    save_image_tokenizer(tokenizer, folder / "image_tokenizer")
    TextTokenizer.train(TEXTS, vocab_size=300).save(folder)
    return image_tokenizer_hash(tokenizer)


def tiny_run(folder: Path, *, num_documents: int = 12, **changes: Any) -> TrainConfig:
    """A run of a tiny model on random shards; ``data``, ``logging`` and such replace the parts."""
    if not (folder / "tokenizer.json").is_file():
        found = tiny_tokenizers(folder)
        for split in ("train", "validation"):
            write_shards(
                folder / split,
                num_documents=num_documents,
                seed=len(split),
                tokenizer_hash=found,
                latent_dim=4,
            )
    settings: dict[str, Any] = dict(
        run_dir=str(folder / "run"),
        image_tokenizer=str(folder / "image_tokenizer"),
        text_tokenizer=str(folder),
        model=ModelConfig(
            backbone=BackboneConfig(dim=32, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=48)
        ),
        data=tiny_data(folder),
        optimizer=OptimizerConfig(learning_rate=5e-3),
        logging=LoggingConfig(log_every=1, evaluate_every=0, sample_every=0, save_every=0),
        max_steps=6,
    )
    return TrainConfig(**(settings | changes))


def recipe_planner(
    recipe: str, *overrides: str, text_tokens: int = 64, device: str = "cpu"
) -> Planner:
    """Plans a recipe of ``train/configs`` with the shipped tokenizers; its data is not needed."""
    model = SHIPPED / "storyworld"
    path = f"train/configs/{recipe}.yaml"
    config = load_config(TrainConfig, [path, *overrides], choices=CHOICES)
    tokenizer = load_image_tokenizer(model / "image_tokenizer")
    schedule = config.model.objectives[0].schedule
    if schedule not in tokenizer.schedules:
        tokenizer = ImageTokenizer(replace(tokenizer.config, schedules=("single", schedule)))
    return Planner(
        config,
        special=TextTokenizer.from_pretrained_file(model).special_ids,
        image_tokenizer=tokenizer.to(device),
        image_size=tokenizer.config.image_size,
        text_tokens=text_tokens,
    )


def tiny_data(folder: Path, **changes: Any) -> DataConfig:
    """The data section of ``tiny_run``."""
    settings: dict[str, Any] = dict(
        train=str(folder / "train"),
        validation=str(folder / "validation"),
        row_length=192,
        rows_per_step=4,
    )
    return DataConfig(**(settings | changes))
