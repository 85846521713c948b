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
from statistics import median
from time import perf_counter
from typing import Any

import torch
import tyro

from unimm import generate_story, load_pipeline
from unimm.data.world.splits import Split
from unimm.evaluation.story_sets import story_tasks
from unimm.ledger import write_ledger
from unimm.pipeline import Pipeline


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


def time_stories(pipeline: Pipeline, batch_size: int, arguments: Arguments) -> dict[str, Any]:
    tasks = story_tasks("words", Split.VALIDATION, num=batch_size, seed=arguments.seed)
    prompts = [task.page_texts[0] for task in tasks]
    is_cuda = pipeline.device.type == "cuda"
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(pipeline.device)
    seconds, stories = [], []
    for _ in range(1 + arguments.repeats):
        start = perf_counter()
        stories = generate_story(
            pipeline,
            prompts,
            num_images=arguments.pages,
            max_text_tokens=arguments.max_text_tokens,
            seed=arguments.seed,
        )
        seconds.append(perf_counter() - start)  # pictures are on the CPU by then
    taken = median(seconds[1:])
    written = sum(len(x) for story in stories for x in story.tokens if isinstance(x, list))
    row = {
        "stories/s": float(f"{batch_size / taken:.3g}"),
        "pictures/s": float(f"{batch_size * arguments.pages / taken:.3g}"),
        "seconds": float(f"{taken:.4g}"),
        "slowest, s": float(f"{max(seconds[1:]):.4g}"),
        "text tokens a story": round(written / batch_size, 1),
        "precision": pipeline.precision,
    }
    peak = torch.cuda.max_memory_allocated(pipeline.device) / 1e9 if is_cuda else None
    return row if peak is None else row | {"peak GB": round(peak, 2)}


def main(arguments: Arguments) -> None:
    loaded = load_pipeline(arguments.model, device=arguments.device)
    table: dict[str, dict[str, Any]] = {}
    for name in loaded.model.config.heads:
        pipeline = loaded.draw_by(name)
        for size in arguments.batch_sizes:
            key = f"{name}, {size} of {arguments.pages} pages"
            table[key] = time_stories(pipeline, size, arguments)
            print(f"{key}: {table[key]}", flush=True)
    if arguments.ledger:
        command = shlex.join(["python", *sys.argv])
        figures = {"stories": table}
        path = write_ledger(
            "stories_speed",
            command=command,
            seed=arguments.seed,
            figures=figures,
            folder=arguments.ledger,
        )
        print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
