"""Score the pictures of generated stories: is it the character that the text names?

    python eval/score_stories.py eval/configs/stories.yaml --model runs/storyworld/model
    python eval/score_stories.py eval/configs/stories.yaml --num_stories 4 --batch_size 4   # CPU

Writes grids (failures first), every story as JSONL and ``summary.json`` into the output folder, and
the ledger ``docs/results/stories.json``.
"""

import json
import shlex
import sys
import time
from pathlib import Path

import torch

from unimm.config import load_config
from unimm.evaluation.story_config import StoryRunConfig
from unimm.evaluation.story_report import score_stories
from unimm.judges.folder import load_detector
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(StoryRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    detector = load_detector(config.detector, device=device)
    pipeline = load_pipeline(config.model, device=device)
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    figures = score_stories(pipeline, detector, config, tell=tell)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    (output / "summary.json").write_text(json.dumps(figures, indent=1) + "\n")
    path = write_ledger(
        "stories",
        command=shlex.join(["python", *sys.argv]),
        seed=config.seed,
        figures=figures,
        folder=config.ledger,
    )
    print(f"wrote {output} and {path}")


if __name__ == "__main__":
    main()
