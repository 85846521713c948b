"""Measure how well an image tokenizer gives pictures back, through codes and through latents.

python tokenizers/score_reconstruction.py --tokenizer runs/image_storyworld/image_tokenizer
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.renders import render_world
from unimm.data.world.splits import Split
from unimm.ledger import write_ledger
from unimm.metrics.image import score_pictures, summarize_scores
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.losses import PerceptualLoss
from unimm.tokenizer.quantizer import code_usage
from unimm.training.picture_grid import save_pairs
from unimm.training.tokenizer_step import to_pixels

SPLITS = {"seen": Split.VALIDATION, "held-out": Split.HELDOUT}
THROUGH = {"codes": False, "latents": True}


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    tokenizer: str
    """Folder of the image tokenizer."""
    num_pictures: int = 1024
    """Pictures of each split."""
    batch_size: int = 32
    seed: int = 1000
    """Which pictures those are; training used another seed."""
    device: str = "cpu"
    perceptual_model: str | None = None
    """Folder of a transformers vision model, for a distance in its features."""
    name: str = "tokenizer"
    """The ledger's name."""
    ledger: str = "docs/results"
    """Folder of the ledger."""
    grid: str = "runs/reconstructions.png"
    """Picture of held-out renders beside their reconstructions."""


@torch.no_grad()
def score_split(
    tokenizer: ImageTokenizer, split: Split, config: ScoreConfig, perceptual: PerceptualLoss | None
) -> tuple[dict[str, dict[str, float]], Tensor]:
    """Give the figures through codes and through latents, and how often each code occurs."""
    side = tokenizer.config.image_size
    pictures = render_world(
        split, num_pictures=config.num_pictures, image_size=side, seed=config.seed
    )
    assert pictures.mask is not None
    scores: dict[str, list[dict[str, Tensor]]] = {name: [] for name in THROUGH}
    counts = torch.zeros(tokenizer.codebook_size, dtype=torch.int64)
    rows = range(0, config.num_pictures, config.batch_size)
    for start in track(rows, description=f"Scoring {split.name.lower()}"):
        stop = start + config.batch_size
        pixels = to_pixels(pictures.pixels[start:stop], config.device)
        mask = pictures.mask[start:stop].to(config.device)
        tokens = tokenizer.encode(pixels)
        assert tokens.codes is not None
        counts += torch.bincount(tokens.codes.flatten().cpu(), minlength=len(counts))
        for name, prefer_latents in THROUGH.items():
            drawn = tokenizer.decode(tokens, prefer_latents=prefer_latents)
            score = score_pictures(drawn, pixels, mask)
            if perceptual is not None:
                score["perceptual"] = perceptual(drawn, pixels)
            scores[name].append({key: value.cpu() for key, value in score.items()})
            if name == "codes" and split is Split.HELDOUT and start == 0:
                save_pairs(Path(config.grid), pixels[:32], drawn[:32])
    summaries = {
        name: {key: round(value, 3) for key, value in summarize_scores(batches).items()}
        for name, batches in scores.items()
    }
    return summaries, counts


def main(config: ScoreConfig) -> None:
    tokenizer = load_image_tokenizer(config.tokenizer).to(config.device)
    perceptual = None
    if config.perceptual_model is not None:
        perceptual = PerceptualLoss(config.perceptual_model).to(config.device)
    table, codes = {}, {}
    for label, split in SPLITS.items():
        summaries, counts = score_split(tokenizer, split, config, perceptual)
        table |= {f"{label}, through {name}": row for name, row in summaries.items()}
        usage = code_usage(counts)
        codes[label] = {
            "codes": tokenizer.codebook_size,
            "used": usage.num_used,
            "never used": usage.num_dead,
            "perplexity": round(usage.perplexity, 1),
        }
    parts = {"encoder": tokenizer.encoder, "decoder": tokenizer.decoder}
    size = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    path = write_ledger(
        config.name,
        command=shlex.join(["python", "tokenizers/score_reconstruction.py", *sys.argv[1:]]),
        seed=config.seed,
        figures={
            "pictures": config.num_pictures,
            "reconstruction": table,
            "codebook": codes,
            "parameters": size,
        },
        folder=config.ledger,
    )
    for row, figures in (table | codes).items():
        print(f"{row}: {figures}")
    print(f"ledger {path}, pairs {config.grid}")


if __name__ == "__main__":
    main(load_config(ScoreConfig, sys.argv[1:]))
