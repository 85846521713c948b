"""Measure how well an image tokenizer gives pictures back, through codes and through latents.

A tokenizer of several schedules is measured through each, and how many of the single-scale codes of
a pyramid's sum (what contexts are made of) are those of the latents.

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
from unimm.document import ImageTokens
from unimm.ledger import write_ledger
from unimm.metrics.codes import code_usage
from unimm.metrics.image import score_pictures, summarize_scores
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.losses import PerceptualLoss
from unimm.tokenizer.schedules import SINGLE
from unimm.training.picture_grid import save_pairs
from unimm.training.tokenizer_step import to_pixels

SPLITS = {"seen": Split.VALIDATION, "held-out": Split.HELDOUT}
LATENTS = "latents"


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


class Tally:
    """What is summed up over the pictures of a split that go one way."""

    def __init__(self, codebook_size: int) -> None:
        self.scores: list[dict[str, Tensor]] = []
        self.counts = torch.zeros(codebook_size, dtype=torch.int64)
        self.num_copied = self.num_copies = 0

    def count(self, tokens: ImageTokens, direct: Tensor) -> None:
        """Count codes, and copies that are the directly encoded codes ``(B, h, w)``."""
        assert tokens.codes is not None
        for codes in tokens.scale_codes or (tokens.codes,):
            self.counts += torch.bincount(codes.flatten().cpu(), minlength=len(self.counts))
        self.num_copied += int((tokens.codes == direct).sum())
        self.num_copies += direct.numel()

    def usage(self) -> dict[str, float]:
        usage = code_usage(self.counts)
        return {
            "codes": len(self.counts),
            "used": usage.num_used,
            "never used": usage.num_dead,
            "perplexity": round(usage.perplexity, 1),
        }

    def summary(self) -> dict[str, float]:
        return {key: round(value, 3) for key, value in summarize_scores(self.scores).items()}


def label_of(schedule: str) -> str:
    return {SINGLE: "codes", LATENTS: LATENTS}.get(schedule, f"scales {schedule}")


@torch.no_grad()
def score_split(
    tokenizer: ImageTokenizer, split: Split, config: ScoreConfig, perceptual: PerceptualLoss | None
) -> dict[str, Tally]:
    """Score each schedule, and the latents."""
    pictures = render_world(
        split,
        num_pictures=config.num_pictures,
        image_size=tokenizer.config.image_size,
        seed=config.seed,
    )
    assert pictures.mask is not None
    ways = {way: Tally(tokenizer.codebook_size) for way in (*tokenizer.schedules, LATENTS)}
    rows = range(0, config.num_pictures, config.batch_size)
    for start in track(rows, description=f"Scoring {split.name.lower()}"):
        stop = start + config.batch_size
        pixels = to_pixels(pictures.pixels[start:stop], config.device)
        mask = pictures.mask[start:stop].to(config.device)
        direct = tokenizer.encode(pixels)
        assert direct.codes is not None and direct.latents is not None
        for way, tally in ways.items():
            tokens = direct if way == LATENTS else tokenizer.to_tokens(direct.latents, way)
            drawn = tokenizer.decode(tokens, prefer_latents=way == LATENTS)
            if way != LATENTS:
                tally.count(tokens, direct.codes)
            score = score_pictures(drawn, pixels, mask)
            if perceptual is not None:
                score["perceptual"] = perceptual(drawn, pixels)
            tally.scores.append({key: value.cpu() for key, value in score.items()})
            if way == tokenizer.schedules[0] and split is Split.HELDOUT and start == 0:
                save_pairs(Path(config.grid), pixels[:32], drawn[:32])
    return ways


def main(config: ScoreConfig) -> None:
    tokenizer = load_image_tokenizer(config.tokenizer).to(config.device)
    perceptual = None
    if config.perceptual_model is not None:
        perceptual = PerceptualLoss(config.perceptual_model).to(config.device)
    table, codes, agreement = {}, {}, {}
    for split_name, split in SPLITS.items():
        for way, tally in score_split(tokenizer, split, config, perceptual).items():
            table[f"{split_name}, through {label_of(way)}"] = tally.summary()
            if way == LATENTS:
                continue
            is_only = len(tokenizer.schedules) == 1
            row = split_name if is_only else f"{split_name}, {label_of(way)}"
            codes[row] = tally.usage()
            if way != SINGLE:
                share = tally.num_copied / tally.num_copies
                agreement[f"{split_name}, {label_of(way)}"] = {"copied codes": round(share, 4)}
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
        }
        | ({"agreement": agreement} if agreement else {}),
        folder=config.ledger,
    )
    for part in (table, codes, agreement):
        for row, figures in part.items():
            print(f"{row}: {figures}")
    print(f"ledger {path}, pairs {config.grid}")


if __name__ == "__main__":
    main(load_config(ScoreConfig, sys.argv[1:]))
