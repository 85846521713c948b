"""Train an image tokenizer on Storyworld, or on a folder of your own pictures.

python tokenizers/train_image_tokenizer.py tokenizers/configs/image_storyworld.yaml

Own pictures: append --source.folder my/pictures (--source.is-cropped for any size).
"""

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from unimm.config import load_config, save_config
from unimm.data.images import FolderBatches, ImageFolder, PictureBatch
from unimm.training.tokenizer import train_image_tokenizer
from unimm.training.tokenizer_config import TokenizerTrainConfig

NUM_HELD_OUT = 256


def open_folder(config: TokenizerTrainConfig, start_step: int) -> FolderBatches:
    assert config.source.folder is not None
    pictures = ImageFolder(
        config.source.folder,
        image_size=config.tokenizer.image_size,
        is_cropped=config.source.is_cropped,
    )
    return FolderBatches(
        pictures,
        batch_size=config.batch_size,
        seed=config.seed + start_step,
        num_workers=config.source.num_workers,
    )


def open_world(config: TokenizerTrainConfig, start_step: int) -> Iterator[PictureBatch]:
    from unimm.data.renders import CHUNK, WorldBatches, WorldChunks
    from unimm.data.world.splits import Split

    source = config.source
    chunks = WorldChunks(Split.TRAIN, seed=config.seed, image_size=config.tokenizer.image_size)
    return WorldBatches(
        chunks,
        batch_size=config.batch_size,
        pool_size=source.pool_size,
        reads_per_picture=source.reads_per_picture,
        num_workers=source.num_workers,
        device=config.device,
        seed=config.seed + start_step,
        first_chunk=int(start_step * config.batch_size / source.reads_per_picture / CHUNK),
    )


def held_out_pictures(config: TokenizerTrainConfig) -> PictureBatch:
    if config.source.folder is not None:  # no split is known: the sample grid shows pictures seen
        return next(open_folder(config, start_step=0))
    from unimm.data.renders import render_world
    from unimm.data.world.splits import Split

    return render_world(
        Split.HELDOUT,
        num_pictures=min(NUM_HELD_OUT, 4 * config.batch_size),
        image_size=config.tokenizer.image_size,
        seed=config.seed,
    )


def main(config: TokenizerTrainConfig) -> None:
    logging.basicConfig(level=logging.INFO)
    torch.manual_seed(config.seed)
    Path(config.run_dir).mkdir(parents=True, exist_ok=True)
    save_config(config, Path(config.run_dir) / "config.yaml")

    def open_batches(start_step: int) -> Iterator[PictureBatch]:
        opener = open_folder if config.source.folder is not None else open_world
        return opener(config, start_step)

    train_image_tokenizer(config, open_batches=open_batches, held_out=held_out_pictures(config))
    print(f"tokenizer written to {Path(config.run_dir) / 'image_tokenizer'}")


if __name__ == "__main__":
    main(load_config(TokenizerTrainConfig, sys.argv[1:]))
