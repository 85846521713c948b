"""Train the detector that judges pictures, and measure how far it can be trusted.

    python eval/train_detector.py eval/configs/detector.yaml --image_tokenizer runs/image_tokenizer

Writes the weights with ``calibration.json`` into the output folder, and the calibration to the
ledger ``docs/results/detector.json``.
"""

import json
import shlex
import sys
from functools import partial
from pathlib import Path

import torch

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.evaluation.calibration import View, calibration_figures
from unimm.judges.corruptions import add_noise, blur, shrink
from unimm.ledger import write_ledger
from unimm.training.detector import DetectorRunConfig, train_detector
from unimm.training.detector_scenes import render_batch, rendered_batches, sample_scenes

CALIBRATION_SEED_OFFSET = 1_000_003  # scenes that training never saw


def reconstruction(folder: str, device: torch.device):
    """An image tokenizer's encoder and decoder as one function, or None without a folder."""
    if not folder:
        return None
    tokenizer = load_image_tokenizer(folder).to(device)
    return lambda pixels: tokenizer.decode(tokenizer.encode(pixels.float()))


def views_of(generator: torch.Generator, reconstruct) -> dict[str, View]:
    """What may happen to pictures before they are judged."""

    def by(function, strength):
        def apply(pixels):
            strengths = torch.full((len(pixels),), strength, device=pixels.device)
            return function(pixels, strengths, generator)

        return View(apply=apply)

    views = {"clean": View(), "drawn at 64 px": View(size=64), "blur 1": by(blur, 1.0)}
    views |= {"half the pixels": by(shrink, 2.0), "noise 0.16": by(add_noise, 0.16)}
    return views | ({"after the image tokenizer": View(apply=reconstruct)} if reconstruct else {})


def main() -> None:
    config = load_config(DetectorRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = True
    generator = torch.Generator(device).manual_seed(config.seed)
    renderer = Renderer(device=device)
    size = config.detector.image_size
    reconstruct = reconstruction(config.image_tokenizer, device)
    fresh = rendered_batches(
        partial(render_batch, renderer=renderer, size=size),
        seed=config.seed,
        batch_size=config.batch_size,
        num_batches=config.num_batches,
        style_shares=config.style_shares,
        num_workers=config.num_workers,
    )
    detector = train_detector(config, fresh, generator=generator, reconstruct=reconstruct)
    fresh.close()

    figures: dict = {"parameters": sum(p.numel() for p in detector.parameters())}
    seed = config.seed + CALIBRATION_SEED_OFFSET
    for style in config.style_shares:
        scenes = sample_scenes(
            seed=seed, start=0, num=config.calibration_scenes, styles=(style,), shares=(1.0,)
        )
        views = views_of(generator, reconstruct)
        figures[style] = calibration_figures(detector, renderer, scenes, views)
        print(style, json.dumps(figures[style]["attributes"], indent=1))
    (Path(config.output) / "calibration.json").write_text(json.dumps(figures, indent=1) + "\n")
    command = shlex.join(["python", *sys.argv])
    write_ledger(
        "detector", command=command, seed=config.seed, figures=figures, folder=config.ledger
    )


if __name__ == "__main__":
    main()
