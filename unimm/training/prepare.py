"""What a run needs before its first step: tokenizers, encoded documents, the model."""

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from unimm.checkpoint import image_tokenizer_hash
from unimm.checkpoint.folder import load_image_tokenizer
from unimm.data.corpus import Corpus, copied_name_mask
from unimm.data.encode import encode_documents, encoder_of
from unimm.data.fit import fit_rows
from unimm.data.loader import Packing, RowStream, evaluation_batches
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.data.sources import WorldSource
from unimm.distributed import barrier, is_main
from unimm.document import Batch
from unimm.model import UniMM
from unimm.objectives.base import ImageSpec
from unimm.objectives.latents import LatentSpace
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.schedules import SINGLE
from unimm.tokenizer.text import TextTokenizer
from unimm.training.build import first_model
from unimm.training.config import DataConfig, TrainConfig, WorldConfig

logger = logging.getLogger(__name__)

_DOCUMENTS_PER_SHARD = 64
_MEASURED = 1024  # pictures whose latents are looked at before training
Splits = Literal["train", "validation", "heldout"]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of.

    Attributes:
        model: freshly drawn, float32, on the CPU; on other ranks than the first not yet filled.
        stream: the rows of the training documents.
        evaluation: name of a held-out set -> its batches with the marks of copied names.
        image_tokenizer: as loaded, on the run's device.
        text_tokenizer: as loaded.
    """

    model: UniMM
    stream: RowStream
    evaluation: dict[str, list[tuple[Batch, Tensor]]]
    image_tokenizer: ImageTokenizer
    text_tokenizer: TextTokenizer


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What the objectives of a run need of every picture.

    Attributes:
        schedules: code layouts.
        with_latents: the latents too.
    """

    schedules: tuple[str, ...] = (SINGLE,)
    with_latents: bool = False


def prepare(config: TrainConfig, *, micro_rows: int, device: torch.device) -> Parts:
    """Load the tokenizers, encode the world if asked, read the shards, draw the model.

    Args:
        config: the run.
        micro_rows: rows of a batch.
        device: where pictures are encoded.
    """
    read_tokenizer = (
        TextTokenizer.from_pretrained_file if config.initial_llm else TextTokenizer.load
    )
    text_tokenizer = read_tokenizer(config.text_tokenizer)
    image_tokenizer = load_image_tokenizer(config.image_tokenizer)
    tokenizer_hash = image_tokenizer_hash(image_tokenizer)
    special = text_tokenizer.special_ids
    image_tokenizer.to(device)
    objectives = config.model.objectives
    kept = Kept(
        schedules=tuple(sorted({objective.schedule for objective in objectives})),
        with_latents=any(objective.needs_latents for objective in objectives),
    )
    folders = _folders(config.data, image_tokenizer, tokenizer_hash, device, kept)
    packing = Packing(
        row_length=config.data.row_length,
        special=special,
        objectives={objective.name: objective for objective in config.model.objectives},
        weights=config.model.shares,
        drop_rate=config.data.drop_rate,
        seed=config.seed,
    )

    def read(split: str, limit: int | None = None) -> Corpus:
        folder = ShardFolder(folders[split], tokenizer_hash=tokenizer_hash)
        if kept.with_latents and not folder.manifest.latent_dim:
            raise ValueError(
                f"the shards in {folder.folder} hold codes only, but "
                f"{', '.join(config.model.heads)} learns from latents: encode the documents again "
                "with tokenizers/encode_shards.py --with_latents True"
            )
        if kept.with_latents:
            _warn_of_scale(folder, LatentSpace(image_tokenizer))
        corpus = Corpus(folder, encode_texts=text_tokenizer.encode_batch, limit=limit)
        fit_rows(corpus, packing)
        return corpus

    stream = RowStream(read("train"), packing)
    evaluation = {
        split: _evaluation(
            read(split, config.data.max_evaluated), stream, micro_rows, text_tokenizer
        )
        for split in folders
        if split != "train"
    }
    spec = ImageSpec(
        codebook_size=image_tokenizer.codebook_size,
        latent_dim=image_tokenizer.latent_dim,
        grid_size=stream.corpus.grid_size[0],
    )
    hashes = text_tokenizer.content_hash, tokenizer_hash
    model = first_model(config, special=special, spec=spec, tokenizer_hashes=hashes)
    model.bind(image_tokenizer)
    return Parts(
        model=model,
        stream=stream,
        evaluation=evaluation,
        image_tokenizer=image_tokenizer,
        text_tokenizer=text_tokenizer,
    )


def _warn_of_scale(folder: ShardFolder, space: LatentSpace) -> None:
    """Say if latents are not of unit size: that would silently change every noise level."""
    latents = next(
        (x[SINGLE].latents for x in folder.images if x[SINGLE].latents is not None), None
    )
    if latents is None or len(latents) == 0:
        return
    std = space.standardise(latents[:_MEASURED].to(space.device)).std(dim=(0, 2, 3))
    low, high = float(std.min()), float(std.max())
    if not 0.8 < low <= high < 1.25:
        logger.warning(
            "standardised latents of %s have standard deviations from %.2f to %.2f, not about 1: "
            "were the image tokenizer's statistics measured on such pictures?",
            folder.folder,
            low,
            high,
        )


def encode_world(
    world: WorldConfig,
    split: Splits,
    *,
    tokenizer: ImageTokenizer,
    tokenizer_hash: str,
    device: torch.device,
    kept: Kept,
) -> Path:
    """Encode documents of the embedded world, or find them encoded.

    Returns:
        The folder of shards, named by what it holds.
    """
    num_documents = world.num_documents if split == "train" else world.num_held_out
    source = WorldSource(
        split=split,
        seed=world.seed,
        num_documents=num_documents,
        image_size=world.image_size,
        mix=world.mix,
    )
    content = [
        split,
        num_documents,
        world.seed,
        world.image_size,
        asdict(world.mix),
        tokenizer_hash,
        asdict(kept),
    ]
    name = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
    folder = Path(world.cache_dir).expanduser() / f"{split}-{name}"
    manifest = ShardManifest(
        tokenizer_hash=tokenizer_hash,
        codebook_size=tokenizer.codebook_size,
        grid_size=tokenizer.grid_size(world.image_size, world.image_size),
        split=split,
        seed=world.seed,
        documents_per_shard=_DOCUMENTS_PER_SHARD,
        schedules=kept.schedules,
        latent_dim=tokenizer.latent_dim if kept.with_latents else 0,
    )
    if is_main():
        writer = ShardWriter(folder, manifest=manifest)
        num_shards = -(-num_documents // _DOCUMENTS_PER_SHARD)
        if not all(map(writer.has, range(num_shards))):
            logger.info("encoding %d %s documents into %s", num_documents, split, folder)
        encode_documents(
            source,
            writer,
            encode=encoder_of(tokenizer, device, kept.schedules, with_latents=kept.with_latents),
            device=device,
            num_processes=world.num_processes,
            batch_size=64,
        )
    barrier()
    return folder


def _folders(
    data: DataConfig,
    tokenizer: ImageTokenizer,
    tokenizer_hash: str,
    device: torch.device,
    kept: Kept,
) -> dict[str, Path]:
    """Split -> folder of shards, of those that there are."""
    if data.world is None:
        named = {"train": data.train, "validation": data.validation, "heldout": data.heldout}
        return {split: Path(folder) for split, folder in named.items() if folder}
    splits: tuple[Splits, ...] = ("train", "validation", "heldout")
    return {
        split: encode_world(
            data.world,
            split,
            tokenizer=tokenizer,
            tokenizer_hash=tokenizer_hash,
            device=device,
            kept=kept,
        )
        for split in splits
        if split == "train" or data.world.num_held_out
    }


def _evaluation(
    corpus: Corpus, stream: RowStream, micro_rows: int, tokenizer: TextTokenizer
) -> list[tuple[Batch, Tensor]]:
    marks: list[list[bool]] = []
    for number, truth in enumerate(corpus.truths):
        found = truth.get("characters", []) if isinstance(truth, dict) else []
        names = [[tokenizer.encode(f" {c['name']}"), tokenizer.encode(c["name"])] for c in found]
        marks.append(copied_name_mask(corpus.document(number), names))
    return evaluation_batches(
        corpus,
        stream.packing,
        micro_rows=micro_rows,
        max_documents=stream.max_documents,
        marks=marks,
    )
