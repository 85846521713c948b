"""Attack the detector: optimise pictures until it sees what is not there, and ask the parser.

    python eval/attack_detector.py --num_pictures 64

Writes the ledger ``docs/results/attacks.json`` and a picture of some attacks.
"""

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.data.world.scene import sample_rng
from unimm.evaluation.attack import attack, sample_claims
from unimm.judges.folder import load_detector
from unimm.judges.parser import Parser
from unimm.ledger import write_ledger
from unimm.tokenizer.pixels import to_levels
from unimm.training.detector_scenes import sample_scenes


@dataclass(frozen=True, kw_only=True)
class AttackConfig:
    detector: str = "unimm/assets/models/detector"
    """Folder of the detector."""
    num_pictures: int = 64
    """Optimised from each kind of beginning."""
    num_steps: int = 80
    """Of the optimisation."""
    num_shown: int = 6
    """Pictures of each beginning that are kept."""
    seed: int = 1_000_030
    """Of the pictures that it begins with, and of what the detector is to see in them."""
    picture: str = "docs/images/attacks.webp"
    """Where some of the pictures are kept."""
    ledger: str = "docs/results"
    """Folder of the ledger."""
    device: str = ""
    """"cpu" or "cuda"; empty takes the GPU where there is one."""


def main() -> None:
    config = load_config(AttackConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    detector = load_detector(config.detector, device=device)
    parser, rng = Parser(device=device), sample_rng(config.seed, 0, 0)
    scenes = sample_scenes(
        seed=config.seed, start=0, num=config.num_pictures, styles=("3d",), shares=(1.0,)
    )
    claims = sample_claims(rng, scenes)
    size = detector.config.image_size
    renders = Renderer(device=device).render(scenes, size=size, only_rgb=True).rgb / 127.5 - 1
    noise = torch.from_numpy(rng.uniform(-1, 1, renders.shape)).float().to(device)
    beginnings = {
        "noise": (noise, None),
        "a render": (renders, None),
        "a render, 16 of 255 levels": (renders, 16 / 127.5),
        "a render, 8 of 255 levels": (renders, 8 / 127.5),
    }
    table, rows = {}, []
    for name, (start, radius) in beginnings.items():
        result = attack(detector, parser, start, claims, radius=radius, num_steps=config.num_steps)
        table[name] = result.table()
        rows.append(torch.cat(list(result.pixels[: config.num_shown]), dim=2))
        print(f"{name}: {json.dumps(table[name])}")
    sheet = to_levels(torch.cat(rows, dim=1)[None])[0]
    Path(config.picture).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet.cpu().numpy()).save(config.picture)
    note = {"command": shlex.join(["python", *sys.argv]), "seed": config.seed}
    ledger = write_ledger("attacks", figures={"attacks": table}, folder=config.ledger, **note)
    print(f"wrote {ledger} and {config.picture}")


if __name__ == "__main__":
    main()
