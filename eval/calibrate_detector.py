"""Measure how far the detector can be trusted: on renders it never saw, where the truth is known.

    python eval/calibrate_detector.py --detector unimm/assets/models/detector

Writes ``calibration.json`` beside the weights and the ledger ``docs/results/detector.json``.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.data.world.scene import STYLES
from unimm.evaluation.calibration import calibrate, calibration_tables, named_views
from unimm.judges.folder import load_detector
from unimm.ledger import write_ledger
from unimm.training.detector_scenes import sample_scenes


@dataclass(frozen=True, kw_only=True)
class CalibrationConfig:
    detector: str = "unimm/assets/models/detector"
    """Folder of the detector."""
    image_tokenizer: str = "unimm/assets/models/storyworld/image_tokenizer"
    """Folder of an image tokenizer whose reconstructions are judged too; empty for none."""
    num_scenes: int = 3000
    """Renders of each art style, half of them of combinations that trunks never train on."""
    styles: tuple[str, ...] = STYLES
    """Art styles."""
    seed: int = 1_000_010
    """Of the scenes; another one than the detector was trained with."""
    ledger: str = "docs/results"
    """Folder of the ledger."""
    device: str = ""
    """"cpu" or "cuda"; empty takes the GPU where there is one."""


def main() -> None:
    config = load_config(CalibrationConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    detector = load_detector(config.detector, device=device)
    reconstruct = None
    if config.image_tokenizer:
        reconstruct = load_image_tokenizer(config.image_tokenizer).to(device).reconstruct
    views = named_views(torch.Generator(device).manual_seed(config.seed), reconstruct)
    renderer = Renderer(device=device)
    tables = {}
    scenes = {
        style: sample_scenes(
            seed=config.seed, start=0, num=config.num_scenes, styles=(style,), shares=(1.0,)
        )
        for style in config.styles
    }
    for style, name in track([(s, v) for s in config.styles for v in views], "Judging renders"):
        tables[style, name] = calibrate(detector, renderer, scenes[style], view=views[name])
        print(f"{style}, {name}: {json.dumps(tables[style, name].attributes())}")
    size = sum(p.numel() for p in detector.parameters())
    figures = {"parameters": size} | calibration_tables(tables)
    path = Path(config.detector) / "calibration.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    command = shlex.join(["python", *sys.argv])
    ledger = write_ledger(
        "detector", command=command, seed=config.seed, figures=figures, folder=config.ledger
    )
    print(f"wrote {path} and {ledger}")


if __name__ == "__main__":
    main()
