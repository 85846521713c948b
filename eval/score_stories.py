"""Score the pictures of generated stories: is it the character that the text names?

    python eval/score_stories.py eval/configs/stories.yaml
    python eval/score_stories.py eval/configs/stories.yaml --num_stories 2 --splits heldout   # CPU

Writes requests, samples, ``results.jsonl``, ``summary.json`` and ``report.html`` into the output
folder; ``--ledger docs/results`` also a ledger, ``stories.json`` or what ``--name`` says. Run it
again to go on with a broken run.
"""

import shlex
import sys
import time

import torch

from unimm.config import load_config
from unimm.evaluation.picture_judge import detector_judge
from unimm.evaluation.story_config import StoryRunConfig
from unimm.evaluation.story_run import score_stories
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(StoryRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    judge = detector_judge(config.detector, device=device)
    pipeline = load_pipeline(config.model, device=device, objective=config.objective or None)
    summary = score_stories(pipeline, judge, config, tell=tell)
    for name, row in (summary["headline"] | summary["controls"]).items():
        print(f"{name:48s}", *(f"{column} {value};" for column, value in row.items()))
    tell(f"wrote {config.output}/summary.json and report.html")
    if config.ledger:
        path = write_ledger(
            config.name,
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures={name: table for name, table in summary.items() if name != "sets"},
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
