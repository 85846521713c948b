"""Encode documents once, so that training reads codes instead of pictures.

python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml
python tokenizers/encode_shards.py tokenizers/configs/shards_own.yaml --documents my/documents.jsonl
"""

import logging
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from rich.progress import Progress

from unimm.checkpoint import image_tokenizer_hash
from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.encode import encode_documents, encoder_of
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.data.sources import JsonlSource, WorldSource
from unimm.data.world.tasks import WorldMix

Split = Literal["train", "validation", "heldout"]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    output: str
    """Folder of shards to write; a broken run goes on where it stopped."""
    image_tokenizer: str
    """Folder of a trained image tokenizer."""
    split: Split = "train"
    """Of the world; for own documents only a label."""
    documents: str = ""
    """JSON lines of own documents; empty takes the embedded world."""
    resize: Literal["crop", "error"] = "crop"
    """What to do with own pictures of another size: cut and resize, or skip and count."""
    num_documents: int = 80_000
    """Of the world."""
    mix: WorldMix = field(default_factory=WorldMix)
    """Shares of the world's kinds of documents."""
    seed: int = 0
    """Of the world."""
    image_size: int = 128
    """Side of the pictures in pixels."""
    with_latents: bool = False
    """Also keep the latents, which the diffusion objectives learn from: eight times the size."""
    documents_per_shard: int = 512
    """What one worker process prepares at a time."""
    num_processes: int = 0
    """Worker processes; 0 does everything in one."""
    batch_size: int = 512
    """Pictures encoded at once."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where pictures are drawn and encoded."""


def main(config: EncodeConfig) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    is_cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if is_cuda else "cpu")
    tokenizer = load_image_tokenizer(config.image_tokenizer)
    size = config.image_size
    source: JsonlSource | WorldSource
    if config.documents:
        source = JsonlSource(config.documents, image_size=size, resize=config.resize)
    else:
        source = WorldSource(
            split=config.split,
            seed=config.seed,
            num_documents=config.num_documents,
            image_size=size,
            mix=config.mix,
        )
    manifest = ShardManifest(
        tokenizer_hash=image_tokenizer_hash(tokenizer),
        codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size(size, size),
        split=config.split,
        seed=config.seed,
        documents_per_shard=config.documents_per_shard,
        schedules=tokenizer.schedules,
        latent_dim=tokenizer.latent_dim if config.with_latents else 0,
        command=shlex.join(["python", *sys.argv]),
    )
    started = time.monotonic()
    with Progress() as bar:
        task = bar.add_task(config.output, total=-(-len(source) // config.documents_per_shard))
        encode_documents(
            source,
            ShardWriter(config.output, manifest=manifest),
            encode=encoder_of(
                tokenizer, device, tokenizer.schedules, with_latents=config.with_latents
            ),
            device=device,
            num_processes=config.num_processes,
            batch_size=config.batch_size,
            on_shard=lambda *_: bar.advance(task),
        )
    folder, seconds = ShardFolder(config.output), time.monotonic() - started
    print(
        f"{folder.num_documents} documents, {folder.num_images} pictures in {Path(config.output)}: "
        f"{seconds:.1f} s, {folder.num_images / seconds:.0f} pictures/s"
    )
    for schedule, share in folder.copy_agreement().items():
        print(f"{schedule}: {share:.1%} of the sum's single-scale codes are those of the latents")


if __name__ == "__main__":
    main(load_config(EncodeConfig, sys.argv[1:]))
