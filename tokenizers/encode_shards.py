"""Encode documents once, so that training reads codes instead of pictures.

python tokenizers/encode_shards.py tokenizers/configs/shards_storyworld.yaml
python tokenizers/encode_shards.py tokenizers/configs/shards_own.yaml --documents my/documents.jsonl
torchrun --nproc_per_node 8 tokenizers/encode_shards.py tokenizers/configs/shards_mixture.yaml
"""

import logging
import os
import shlex
import sys
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from unimm.checkpoint import image_tokenizer_hash
from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.encode import encode_documents, encoder_of
from unimm.data.encode_config import EncodeConfig, open_sources
from unimm.data.files import FileSource
from unimm.data.formats import FORMATS, FormatConfig
from unimm.data.mixture import write_mixture
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.data.sources import Source
from unimm.tokenizer.image import ImageTokenizer


def main(config: EncodeConfig) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    is_cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if is_cuda else "cpu"
    tokenizer = load_image_tokenizer(config.image_tokenizer)
    if config.sources:
        weights = {name: source.weight for name, source in config.sources.items()}
        write_mixture(config.output, weights)
    for name, source in open_sources(config).items():
        encode(config, tokenizer, source, Path(config.output) / name, torch.device(device))


def encode(
    config: EncodeConfig,
    tokenizer: ImageTokenizer,
    source: Source,
    folder: Path,
    device: torch.device,
) -> None:
    manifest = ShardManifest(
        tokenizer_hash=image_tokenizer_hash(tokenizer),
        codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size(config.image_size, config.image_size),
        split=config.split,
        seed=config.seed,
        documents_per_shard=config.documents_per_shard,
        schedules=tokenizer.schedules,
        latent_dim=tokenizer.latent_dim if config.with_latents else 0,
        content_hash=source.content_hash if isinstance(source, FileSource) else "",
        command=shlex.join(["python", *sys.argv]),
    )
    schedules = tokenizer.schedules
    (part, num_parts), started = config.parts(), time.monotonic()
    num_shards = -(-len(source) // config.documents_per_shard)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    is_quiet = os.environ.get("RANK", "0") != "0"  # torchrun's others share a terminal
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as bar:
        task = bar.add_task(str(folder), total=len(range(part, num_shards, num_parts)))
        left = encode_documents(
            source,
            ShardWriter(folder, manifest=manifest),
            encode=encoder_of(tokenizer, device, schedules, with_latents=config.with_latents),
            device=device,
            num_processes=config.num_processes,
            batch_size=config.batch_size,
            part=(part, num_parts),
            on_shard=lambda *_: bar.advance(task),
        )
    if left:
        print(f"{folder}: part {part} of {num_parts} is done; other parts have {left} shards left")
    else:
        print(describe(ShardFolder(folder), time.monotonic() - started))


def describe(folder: ShardFolder, seconds: float) -> str:
    """Counts of a finished folder; they stand in its index.json too."""
    totals = folder.totals
    lines = [
        f"{folder.folder}: {totals.documents} of {totals.read} documents, {totals.pictures} "
        f"pictures; {seconds:.1f} s"
    ]
    lines += [f"  skipped {number} documents: {x}" for x, number in totals.skipped.items()]
    lines += [f"  left out {number} pictures: {x}" for x, number in totals.dropped_pictures.items()]
    for schedule, share in folder.copy_agreement().items():
        lines.append(f"{schedule}: {share:.1%} of the sum's codes are those of the latents")
    return "\n".join(lines)


if __name__ == "__main__":
    main(load_config(EncodeConfig, sys.argv[1:], choices={FormatConfig: FORMATS}))
