"""Train the tiny run of a folder under every ZeRO stage, with four objectives; torchrun starts it.

argv: the folder that ``tiny_run`` prepared, and a word that goes into the names of the runs.
"""

import sys
from pathlib import Path

import torch
from corpora import tiny_data, tiny_run
from helpers import tiny_objective

from unimm.distributed import shutdown
from unimm.model import ModelConfig
from unimm.nn.transformer import BackboneConfig
from unimm.training.config import EngineConfig
from unimm.training.loop import train


def main(folder: Path, word: str) -> None:
    torch.set_num_threads(1)
    model = ModelConfig(
        backbone=BackboneConfig(dim=32, depth=2, num_heads=2, num_kv_heads=2, ffn_dim=48),
        # Several, so that some rank has none of one's pictures in some step.
        objectives=tuple(map(tiny_objective, ("next_token", "next_scale", "masked", "diffusion"))),
    )
    for stage in (0, 1, 2, 3):
        config = tiny_run(
            folder,
            model=model,
            data=tiny_data(folder, rows_per_step=4, micro_rows=1, row_length=200),
            engine=EngineConfig(zero_stage=stage, device="cpu"),
            run_dir=str(folder / f"{word}_{stage}"),
        )
        weights = {}

        def save(trained, parts, path, weights=weights):
            weights.update(trained.state_dict())

        train(config, draw=lambda *_: None, save=save)
        if weights:
            torch.save(weights, folder / f"{word}_{stage}" / "weights.pt")
    shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
