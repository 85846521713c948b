"""Score edits: has the new picture the change that was asked for, and is the rest kept?

    python eval/score_edits.py --ledger docs/results
    python eval/score_edits.py --num_edits 2 --actions recolour remove --device cpu   # a try

Prints a row for each kind of edit, beside ceilings and baselines; ``--ledger`` also writes the
ledger ``edits.json``.
"""

import shlex
import sys
import time

import torch

from unimm.config import load_config
from unimm.evaluation.edit_scores import EditRunConfig, score_edits
from unimm.evaluation.picture_judge import detector_judge
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(EditRunConfig, sys.argv[1:])
    device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    start = time.monotonic()

    def tell(line: str) -> None:
        print(f"[{time.monotonic() - start:6.1f} s] {line}", flush=True)

    judge = detector_judge(config.detector, device=device)
    pipeline = load_pipeline(config.model, device=device, objective=config.objective or None)
    table = score_edits(pipeline, judge, config, tell=tell)
    if config.ledger:
        path = write_ledger(
            "edits",
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures={"table": table},
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
