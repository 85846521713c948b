"""Audit the detector with the parser: how often two judges of different kinds say the same.

    python eval/audit_detector.py --num_scenes 1000

Writes the ledger ``docs/results/parser.json``.
"""

import json
import shlex
import sys
from dataclasses import dataclass

import torch

from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.data.world.scene import STYLES
from unimm.evaluation.audit import audit
from unimm.judges.folder import load_detector
from unimm.judges.parser import Parser, ParserConfig
from unimm.ledger import write_ledger
from unimm.training.detector_scenes import sample_scenes


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    detector: str = "unimm/assets/models/detector"
    """Folder of the detector."""
    num_scenes: int = 1000
    """Renders of each art style and size."""
    styles: tuple[str, ...] = STYLES
    """Art styles; the parser is told which one it looks at."""
    sizes: tuple[int, ...] = (128, 64)
    """Sides of the pictures in pixels."""
    seed: int = 1_000_020
    """Of the scenes; another one than the detector was trained with."""
    ledger: str = "docs/results"
    """Folder of the ledger."""
    device: str = ""
    """"cpu" or "cuda"; empty takes the GPU where there is one."""


def main() -> None:
    config = load_config(AuditConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    detector = load_detector(config.detector, device=device)
    renderer = Renderer(device=device)
    tables = {"agreement": {}, "parser": {}, "detector": {}, "parser exact": {}}
    for style in config.styles:
        parser = Parser(ParserConfig(styles=(style,)), device=device)
        scenes = sample_scenes(
            seed=config.seed, start=0, num=config.num_scenes, styles=(style,), shares=(1.0,)
        )
        for size in config.sizes:
            row, counts = (
                f"{style}, {size} px",
                audit(detector, parser, renderer, scenes, size=size),
            )
            tables["agreement"][row] = counts.agreement()
            tables["parser"][row] = counts.parser.attributes()
            tables["detector"][row] = counts.detector.attributes()
            by_number = counts.parser.scenes().items()
            tables["parser exact"][row] = {f"{n} figures": x["exact"] for n, x in by_number}
            print(row, json.dumps(counts.agreement()))
    command = shlex.join(["python", *sys.argv])
    where = write_ledger(
        "parser", command=command, seed=config.seed, figures=tables, folder=config.ledger
    )
    print(f"wrote {where}")


if __name__ == "__main__":
    main()
