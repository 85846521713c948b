"""WorldEval of true renders seen through image tokenizers: what no trunk behind them can exceed.

python eval/score_ceiling.py eval/configs/images.yaml --tokenizer runs/image_nano/image_tokenizer

One row a tokenizer and schedule; give ``--tokenizer`` several folders. All other options are those
of ``eval/score_images.py``.
"""

import shlex
import sys
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from unimm.checkpoint.folder import load_image_tokenizer
from unimm.config import load_config
from unimm.data.world.render import Renderer
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_judge import PictureJudge, detector_judge
from unimm.evaluation.picture_references import true_scenes
from unimm.evaluation.picture_requests import DESCRIPTIVE, PictureRequest
from unimm.evaluation.picture_run import make_requests
from unimm.evaluation.pictures import render_pictures
from unimm.ledger import write_ledger


@dataclass(frozen=True, kw_only=True)
class CeilingConfig(PictureRunConfig):
    tokenizer: tuple[str, ...] = ("unimm/assets/models/storyworld/image_tokenizer",)
    """Folders of image tokenizers."""
    name: str = "tokenizer_ceilings"
    """The ledger's name."""


def score(judge: PictureJudge, requests: list[PictureRequest], view, renderer, size: int):
    """Percent of pictures that are right, the mean over the tasks of each split."""
    pictures = render_pictures(true_scenes(requests), renderer, size=size, view=view)
    groups: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for request, verdict in zip(requests, judge.judge(requests, pictures), strict=True):
        groups[request.split][request.tag].append(verdict.correct)
    means = {
        split: sum(sum(found) / len(found) for found in tasks.values()) / len(tasks)
        for split, tasks in groups.items()
    }
    return {split: round(100 * mean, 1) for split, mean in means.items()}


def main() -> None:
    config = load_config(CeilingConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    judge, renderer = detector_judge(config.detector, device=device), Renderer(device=device)
    requests = [request for request in make_requests(config) if request.tag != DESCRIPTIVE]
    table: dict[str, dict[str, float]] = {}
    for folder in config.tokenizer:
        tokenizer = load_image_tokenizer(folder).to(device)
        size = tokenizer.config.image_size
        table.setdefault("renders", score(judge, requests, None, renderer, size))
        for schedule in tokenizer.schedules:
            view = partial(tokenizer.reconstruct, schedule=schedule)
            row = f"{Path(folder).parent.name}, {schedule}"
            table[row] = score(judge, requests, view, renderer, size)
            print(row, table[row], flush=True)
    print("renders", table["renders"])
    if config.ledger:
        command = shlex.join(["python", *sys.argv])
        write_ledger(
            config.name,
            command=command,
            seed=config.seed,
            figures={"ceilings": table},
            folder=config.ledger,
        )


if __name__ == "__main__":
    main()
