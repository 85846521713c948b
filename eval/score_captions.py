"""Score what a model says of pictures: is it true, is it all, does it invent things?

    python eval/score_captions.py eval/configs/captions.yaml
    python eval/score_captions.py eval/configs/captions.yaml --num_pictures 16  # CPU: seconds

Writes ``captions.jsonl``, ``summary.json`` and ``report.html``; ``--ledger docs/results`` also the
ledger ``captions.json``.
"""

import shlex
import sys
import time

import torch

from unimm.config import load_config
from unimm.evaluation.caption_run import CaptionRunConfig, score_captions
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(CaptionRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    pipeline = load_pipeline(config.model, device=device)
    summary = score_captions(pipeline, config, device=device, tell=tell)
    for name, row in summary["table"].items():
        print(f"{name:36s}", *(f"{column} {value};" for column, value in row.items()))
    tell(f"wrote {config.output}/summary.json and report.html")
    if config.ledger:
        path = write_ledger(
            "captions",
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures=summary,
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
