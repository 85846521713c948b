"""Score whether pictures and words follow a name, by likelihood: nothing is drawn.

    python eval/score_binding.py --ledger docs/results
    python eval/score_binding.py --num_stories 2 --sets pair --splits validation   # a try on a CPU

Prints a row for words and each objective, set and split; ``--ledger`` also writes ``binding.json``
there.
"""

import shlex
import sys

import torch

from unimm.config import load_config
from unimm.evaluation.story_binding import BindingConfig, score_binding, score_words
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


def main() -> None:
    config = load_config(BindingConfig, sys.argv[1:])
    # Differences of sums over hundreds of codes: full precision.
    pipeline = load_pipeline(config.model, device=config.device or None, dtype=torch.float32)
    table = score_words(pipeline, config)
    for key, row in table.items():
        print(f"{key}: {row}", flush=True)
    for name in pipeline.model.config.heads:
        for key, row in score_binding(pipeline.draw_by(name), config).items():
            table[key] = row
            print(f"{key}: {row}", flush=True)
    if config.ledger:
        path = write_ledger(
            "binding",
            command=shlex.join(["python", *sys.argv]),
            seed=config.seed,
            figures={"table": table},
            folder=config.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
