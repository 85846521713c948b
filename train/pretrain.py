"""Train a trunk on documents of text and pictures; run it again to go on with a broken run.

python train/pretrain.py train/configs/nano.yaml
python train/pretrain.py train/configs/storyworld.yaml --max_minutes 9
torchrun --nproc_per_node 2 train/pretrain.py train/configs/storyworld.yaml --engine.zero_stage 1
"""

import logging
import sys
from pathlib import Path

import torch

from unimm.checkpoint import SamplerDefaults
from unimm.config import load_config
from unimm.distributed import shutdown
from unimm.model import UniMM
from unimm.pipeline import Pipeline
from unimm.training.config import TrainConfig
from unimm.training.loop import train
from unimm.training.prepare import Parts
from unimm.training.resume import CHOICES
from unimm.training.samples import draw_samples

_SHARD = 5 * 10**9  # bytes of a weight file, as is usual on the Hub


def as_pipeline(model: UniMM, parts: Parts) -> Pipeline:
    device = model.text_embedding.weight.device
    return Pipeline(
        model=model,
        text_tokenizer=parts.text_tokenizer,
        image_tokenizer=parts.image_tokenizer.to(device),
        sampler=SamplerDefaults.of(model.config.objectives[0]),
    )


def draw(model: UniMM, parts: Parts, path: Path) -> None:
    model.eval()
    draw_samples(as_pipeline(model, parts), path)
    model.train()


def save(model: UniMM, parts: Parts, folder: Path) -> None:
    as_pipeline(model, parts).save_pretrained(folder, max_shard_bytes=_SHARD)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_float32_matmul_precision("high")
    config = load_config(TrainConfig, sys.argv[1:], choices=CHOICES)
    try:
        folder = train(config, draw=draw, save=save)
        print(f"model written to {folder}")
    finally:
        shutdown()


if __name__ == "__main__":
    main()
