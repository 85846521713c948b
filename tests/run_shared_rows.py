"""Four ranks in two groups train the tiny run of a folder; torchrun starts it.

argv: the folder that ``tiny_run`` prepared.
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from corpora import tiny_data, tiny_run
from helpers import tiny_objective

from unimm.distributed import shutdown
from unimm.training.config import EngineConfig
from unimm.training.loop import train


def shared_run(folder: Path, name: str, *, micro_rows: int, **engine):
    """The run, with objectives that fill slots and that do not."""
    config = tiny_run(
        folder,
        data=tiny_data(folder, rows_per_step=4, micro_rows=micro_rows, row_length=200),
        engine=EngineConfig(device="cpu", **engine),
        run_dir=str(folder / name),
    )
    objectives = tuple(map(tiny_objective, ("next_token", "masked", "diffusion")))
    logging = replace(config.logging, evaluate_every=3)
    model = replace(config.model, objectives=objectives)
    return replace(config, model=model, logging=logging)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for stage in (0, 1, 3):
        config = shared_run(
            folder, f"shared_{stage}", micro_rows=1, zero_stage=stage, sequence_ranks=2
        )
        train(config, draw=lambda *_: None, save=lambda *_: None)
    shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
