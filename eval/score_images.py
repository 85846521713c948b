"""Score the pictures of a model on WorldEval, beside their ceilings and baselines.

    python eval/score_images.py eval/configs/images.yaml
    python eval/score_images.py eval/configs/images.yaml --num_prompts 4            # a quick look
    python eval/score_images.py eval/configs/images.yaml --model none --output runs/other
    python eval/score_images.py eval/configs/images_sweep.yaml   # choose the sampling first

``--model none`` writes the requests; fill ``OUTPUT/samples`` with any generator and run it again.
Writes ``results.jsonl``, ``summary.json`` and ``report.html``; ``--ledger docs/results`` also the
ledger ``worldeval.json``, or ``--name``. Run it again to go on with a broken run.
"""

import shlex
import sys
import time

import torch

from unimm.config import load_config
from unimm.evaluation.picture_config import NO_MODEL, PictureRunConfig
from unimm.evaluation.picture_judge import detector_judge
from unimm.evaluation.picture_run import score_pictures
from unimm.judges.extractors import detector_extractor, load_extractor
from unimm.judges.folder import load_detector
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(PictureRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    pipeline = (
        None
        if config.model == NO_MODEL
        else load_pipeline(config.model, device=device, objective=config.objective or None)
    )
    judge = detector_judge(config.detector, device=device)
    if config.extractor:
        extractor = load_extractor(config.extractor, device=device)
    else:
        extractor = detector_extractor(load_detector(config.detector, device=device))
    summary = score_pictures(pipeline, judge, config, extractor=extractor, device=device, tell=tell)
    if summary is None:
        return
    for name, row in (summary["table"] | summary["distribution"]).items():
        print(f"{name:36s}", *(f"{column} {value};" for column, value in row.items()))
    tell(f"wrote {config.output}/summary.json and report.html")
    if config.ledger:
        path = write_ledger(
            config.name,
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures=summary,
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
