"""Score pages beyond the training length: what does a cache policy remember, and a plain window?

python eval/score_long_stories.py --ledger docs/results
python eval/score_long_stories.py --num_stories 1 --num_pages 8 --device cpu   # a try
"""

import shlex
import sys
import time

import torch

from unimm.config import load_config
from unimm.evaluation.long_stories import LongStoryConfig, score_long_stories
from unimm.evaluation.picture_judge import detector_judge
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(LongStoryConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    judge = detector_judge(config.detector, device=device)
    pipeline = load_pipeline(config.model, device=device, objective=config.objective or None)
    table = score_long_stories(pipeline, judge, config, tell=tell)
    if config.ledger:
        path = write_ledger(
            "long_stories",
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures={"policies": table},
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
