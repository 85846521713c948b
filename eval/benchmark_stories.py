"""Measure how many whole stories a model tells in a second: text, pictures, decoding.

    python eval/benchmark_stories.py storyworld --ledger docs/results
    python eval/benchmark_stories.py storyworld --batch-sizes 1 --repeats 1   # a try on a CPU

Times ``generate_story`` from the first pages of validation stories; the model writes the rest. The
first call of a batch size warms up and is not counted.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from unimm.evaluation.story_speed import time_stories
from unimm.ledger import write_ledger
from unimm.pipeline import load_pipeline


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured."""

    model: tyro.conf.Positional[str] = "storyworld"
    """A shipped model, a model folder or a Hub id, by each of its objectives."""
    batch_sizes: tuple[int, ...] = (1, 64)
    """Stories told at once."""
    pages: int = 4
    """Of each story."""
    max_text_tokens: int | None = None
    """Bound on the text before each picture; by default the library's."""
    repeats: int = 3
    """Calls that are timed; the median counts."""
    seed: int = 5151
    """Of the beginnings and of the telling."""
    device: str | None = None
    """By default the GPU if there is one."""
    ledger: Path | None = None
    """Folder of the ledger ``stories_speed``; by default none is written."""


def main(arguments: Arguments) -> None:
    loaded = load_pipeline(arguments.model, device=arguments.device)
    table: dict[str, dict[str, Any]] = {}
    for name in loaded.model.config.heads:
        pipeline = loaded.draw_by(name)
        for size in arguments.batch_sizes:
            key = f"{name}, {size} of {arguments.pages} pages"
            table[key] = time_stories(
                pipeline,
                batch_size=size,
                num_pages=arguments.pages,
                repeats=arguments.repeats,
                seed=arguments.seed,
                max_text_tokens=arguments.max_text_tokens,
            )
            print(f"{key}: {table[key]}", flush=True)
    if arguments.ledger:
        path = write_ledger(
            "stories_speed",
            command=shlex.join(["python", *sys.argv]),
            seed=arguments.seed,
            figures={"stories": table},
            folder=arguments.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
