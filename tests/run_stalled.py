"""Two ranks train the tiny run of a folder; rank 1 stalls in step 2. torchrun starts it.

argv: the folder that ``tiny_run`` prepared, the limit in seconds.
"""

import logging
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from corpora import tiny_data, tiny_run

from unimm.distributed import rank
from unimm.training import loop
from unimm.training.config import EngineConfig, GuardConfig


def main(folder: Path, limit: float) -> None:
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    real, calls = loop.islice, []

    def stalls(*args):
        calls.append(1)
        if len(calls) == 3 and rank() == 1:
            time.sleep(600)  # as a loader does whose disk does not answer
        return real(*args)

    loop.islice = stalls
    config = tiny_run(
        folder,
        data=tiny_data(folder, micro_rows=1),
        engine=EngineConfig(device="cpu"),
        guard=GuardConfig(hang_seconds=limit),
    )
    loop.train(replace(config, max_steps=50), draw=lambda *_: None, save=lambda *_: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
