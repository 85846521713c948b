"""Two ranks train the tiny run of a folder in every ZeRO stage; rank 1's loss is NaN in step 2.

argv: the folder that ``tiny_run`` prepared.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from corpora import tiny_data, tiny_run

from unimm.distributed import rank, shutdown
from unimm.model import UniMM
from unimm.training.config import EngineConfig
from unimm.training.loop import train


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    forward, calls = UniMM.forward, []

    def poisoned(self, batch, **kwargs):
        losses = forward(self, batch, **kwargs)
        calls.append(1)
        is_bad = rank() == 1 and len(calls) == 5  # two micro-batches a step
        return replace(losses, total=losses.total * float("nan")) if is_bad else losses

    UniMM.forward = poisoned
    for stage in (0, 1, 2, 3):
        calls.clear()
        config = tiny_run(
            folder,
            data=tiny_data(folder, micro_rows=1),
            engine=EngineConfig(zero_stage=stage, device="cpu"),
            run_dir=str(folder / f"stage_{stage}"),
        )
        train(config, draw=lambda *_: None, save=lambda *_: None)
    shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
