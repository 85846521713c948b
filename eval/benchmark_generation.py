"""Measure how fast models draw, and how near that comes to what the device can do at most.

    python eval/benchmark_generation.py storyworld --batch-sizes 1 4
    python eval/benchmark_generation.py --sizes 343M var-d16 --batch-sizes 1 64 --launches

Times ``generate_image``: prompt, drawing with guidance in a doubled batch, decoding.
"""

import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from unimm.evaluation.random_models import SIZES, random_pipeline
from unimm.evaluation.speed import SpeedReport
from unimm.ledger import RESULTS, write_ledger
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline, load_pipeline


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What is measured."""

    model: tyro.conf.Positional[str] = ""
    """A shipped model, a model folder or a Hub id, by each of its objectives."""
    sizes: tuple[str, ...] = ()
    """Models of these published sizes, with random weights."""
    batch_sizes: tuple[int, ...] = (1, 64)
    """Pictures drawn at once."""
    context: tuple[int, ...] = ()
    """Earlier pictures behind which one more is drawn."""
    launches: bool = False
    """Count kernels and launches (on a GPU). The profiler slows what is measured after it: ask for
    one model and objective only."""
    repeats: int = 3
    """Calls that are timed; the median counts."""
    device: str | None = None
    """By default the GPU if there is one."""
    name: str = "generation"
    """Of the ledger."""
    output: Path = RESULTS
    """Folder of the ledger and the charts."""


def pipelines(arguments: Arguments) -> Iterator[tuple[str, Pipeline, SamplingConfig]]:
    """One after the other: two may not fit into memory."""
    device = torch.device(arguments.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if arguments.model:
        loaded = load_pipeline(arguments.model, device=device)
        for name in loaded.model.config.heads:
            yield name, (drawing := loaded.draw_by(name)), drawing.sampler.first_page
        del loaded, drawing
    for size in arguments.sizes:
        yield size, random_pipeline(size, device=device), SIZES[size].sampling


def main(arguments: Arguments) -> None:
    report, command = SpeedReport(), shlex.join(["python", *sys.argv])
    for name, pipeline, sampling in pipelines(arguments):
        report.add(
            name,
            pipeline,
            sampling,
            batch_sizes=arguments.batch_sizes,
            context=arguments.context,
            repeats=arguments.repeats,
            with_launches=arguments.launches,
        )
        # After each model: the next may not fit.
        figures, folder = report.figures(), arguments.output
        path = write_ledger(arguments.name, command=command, seed=1, figures=figures, folder=folder)
        for chart, svg in report.charts().items():
            path.with_name(f"{arguments.name}_{chart}.svg").write_text(svg, encoding="utf-8")
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
