"""Compare denoiser heads, sizes and kinds of conditioning, on one frozen trunk's hidden states.

python train/compare_heads.py train/configs/heads.yaml --model runs/storyworld_diffusion/model
"""

import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch

from unimm.config import load_config
from unimm.data.corpus import Corpus
from unimm.data.shards import ShardFolder
from unimm.ledger import write_ledger
from unimm.nn.denoiser import DenoiserConfig
from unimm.pipeline import Pipeline, load_pipeline
from unimm.training.heads import (
    HeadBudget,
    States,
    cache_states,
    compare_heads,
    diffusion_batches,
    save_states,
)


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """A comparison."""

    model: str
    """Whose trunk is frozen; diffusion is one of its objectives."""
    train: str
    """Folder of shards with latents."""
    validation: str
    """The same of unseen documents."""
    heads: dict[str, DenoiserConfig]
    """Name -> head; their patches are the model's."""
    output: str = "runs/heads"
    """Where the states are kept."""
    ledger: str = ""
    """Folder of the ledger; empty writes none."""
    num_pictures: int = 40_000
    """To learn from."""
    num_validation: int = 1_200
    """To measure on."""
    row_length: int = 4608
    """Of the rows that the trunk runs over."""
    budget: HeadBudget = field(default_factory=HeadBudget)
    """Of every head."""
    num_processes: int = 5
    """Heads trained at once; 0 trains one after the other."""


def states_of(pipeline: Pipeline, folder: str, config: HeadsConfig, count: int) -> States:
    corpus = Corpus(ShardFolder(folder), encode_texts=pipeline.text_tokenizer.encode_batch)
    batches = diffusion_batches(
        pipeline, corpus, row_length=config.row_length, seed=config.budget.seed
    )
    return cache_states(pipeline, (batches[i] for i in range(10**6)), count=count)


def main() -> None:
    config = load_config(HeadsConfig, sys.argv[1:])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pipeline = load_pipeline(config.model, device=device, dtype=torch.float32)
    path = Path(config.output) / "states.safetensors"
    if not path.is_file():
        counts = {"train": config.num_pictures, "validation": config.num_validation}
        sets = {
            name: states_of(pipeline, getattr(config, name), config, number)
            for name, number in counts.items()
        }
        save_states(sets, path)
        print(f"states of {config.num_pictures} pictures in {path}", flush=True)
    del pipeline
    figures = compare_heads(
        path, config.heads, config.budget, device=device, num_processes=config.num_processes
    )
    for name, row in figures.items():
        print(f"{name:14s}", *(f"{key} {value:g};" for key, value in row.items()))
    if config.ledger:
        command = shlex.join(["python", *sys.argv])
        folder = write_ledger(
            "denoiser_heads",
            command=command,
            seed=config.budget.seed,
            figures={"heads": figures},
            folder=config.ledger,
        )
        print(f"wrote {folder}")


if __name__ == "__main__":
    main()
