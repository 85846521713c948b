"""Score a model that denoises: WorldEval at several numbers of steps, cost, and colour swaps.

python eval/score_denoiser.py eval/configs/denoiser.yaml --pictures.model MODEL
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from PIL import Image

from unimm.config import load_config
from unimm.evaluation.colour_swaps import sample_swaps, score_swaps
from unimm.evaluation.drawing_cost import drawing_cost
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_folder import PictureFolder
from unimm.evaluation.picture_judge import detector_judge
from unimm.evaluation.picture_run import score_pictures
from unimm.evaluation.picture_sweep import choose_sampling
from unimm.generation import generate_image
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


@dataclass(frozen=True, kw_only=True)
class DenoiserScores:
    """What is scored."""

    name: str = "denoiser"
    """Of the ledger."""
    steps: tuple[int, ...] = (10, 50)
    """Numbers of steps; the first is the one that colours are swapped with."""
    num_swaps: int = 200
    """Pairs of prompts."""
    num_timed: int = 256
    """Pictures drawn at once to measure speed."""
    pictures: PictureRunConfig = field(default_factory=PictureRunConfig)
    """WorldEval; a folder for each number of steps is made in its output."""


def _say(score: dict[str, float]) -> str:
    return f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]"


def main() -> None:
    config = load_config(DenoiserScores, sys.argv[1:])
    device = torch.device(
        config.pictures.device or ("cuda" if torch.cuda.is_available() else "cpu")
    )
    pipeline = load_pipeline(
        config.pictures.model, device=device, objective=config.pictures.objective or None
    )
    judge = detector_judge(config.pictures.detector, device=device)
    folder = PictureFolder(f"{config.pictures.output}/sweep")
    sampling, sweep = choose_sampling(pipeline, judge, config.pictures, folder, tell=print)
    run = replace(config.pictures, sampling=sampling, sweep=())
    rows: dict[str, dict[str, Any]] = {}
    for number in config.steps:
        part = replace(
            run,
            sampling=replace(sampling, num_steps=number),
            output=f"{run.output}/{number}_steps",
        )
        summary = score_pictures(pipeline, judge, part, device=device, tell=print)
        assert summary is not None
        means = {
            f"{split} mean": _say(x["mean"]["score"]) for split, x in summary["splits"].items()
        }
        options = vars(part.sampling)
        rows[f"{number} steps"] = {
            **means,
            **drawing_cost(pipeline, batch_size=config.num_timed, **options).row(),
        }
    options = vars(replace(sampling, num_steps=config.steps[0]))

    def draw(prompts: list[str], seeds: list[int]) -> Sequence[Image.Image]:
        return generate_image(pipeline, prompts, seed=seeds, **options)

    swaps = score_swaps(sample_swaps(config.num_swaps, seed=run.seed), draw, judge, seed=run.seed)
    figures = {"steps": rows, "colour swaps": swaps, "sampling": vars(sampling), "sweep": sweep}
    print(figures)
    if run.ledger:
        command = shlex.join(["python", *sys.argv])
        path = write_ledger(
            config.name, command=command, seed=run.seed, figures=figures, folder=run.ledger
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
