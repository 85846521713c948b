"""Measure how fast training batches are made, and how fast they arrive from worker processes.

    python train/benchmark_loader.py
    python train/benchmark_loader.py --num-workers 14 --name loader_gpu

Documents are Storyworld's; their codes are random, which costs the same.
"""

import shlex
import sys
import tempfile
import time
from dataclasses import dataclass

import torch
import tyro
from torch import Tensor

from unimm.data.corpus import Corpus
from unimm.data.encode import encode_documents
from unimm.data.loader import Packing, RowStream, TrainBatches, iterate_batches
from unimm.data.shards import ShardFolder, ShardManifest, ShardWriter
from unimm.data.sources import WorldSource
from unimm.document import ImageTokens
from unimm.ledger import describe_hardware, write_ledger
from unimm.objectives import OBJECTIVES
from unimm.pipeline import SHIPPED
from unimm.tokenizer.text import TextTokenizer


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    row_length: int = 4608
    """Positions of a row."""
    rows: int = 16
    """Rows of a batch."""
    num_documents: int = 1000
    """Documents that batches are made of."""
    num_workers: int = 1
    """Processes that batches are received from; pinned where there is a GPU."""
    num_batches: int = 40
    """Batches of each figure."""
    seed: int = 0
    """Of documents, codes and batches."""
    name: str = "loader"
    """Name of the ledger."""
    ledger: str = "docs/results"
    """Folder of the ledger."""


def encode_randomly(folder: str, arguments: Arguments) -> ShardFolder:
    """Documents with random pictures in every form that an objective learns from."""
    manifest = ShardManifest(
        tokenizer_hash="random",
        codebook_size=4096,
        grid_size=(16, 16),
        split="train",
        seed=arguments.seed,
        documents_per_shard=512,
        schedules=tuple({make().schedule: None for make in OBJECTIVES.values()}),
        latent_dim=8,
    )
    generator = torch.Generator().manual_seed(arguments.seed)

    def encode(pixels: Tensor) -> dict[str, ImageTokens]:
        return {
            name: manifest.blank(name, len(pixels)).map(
                lambda zeros: torch.randint(4096, zeros.shape, generator=generator)
            )
            for name in manifest.schedules
        }

    source = WorldSource(num_documents=arguments.num_documents, seed=arguments.seed, image_size=32)
    encode_documents(source, ShardWriter(folder, manifest=manifest), encode=encode)
    return ShardFolder(folder)


def measure(batches: TrainBatches, arguments: Arguments) -> dict[str, float]:
    """Rates in positions a second."""
    number, workers = arguments.num_batches, arguments.num_workers
    positions = number * arguments.rows * arguments.row_length
    batches[0]  # packs the epoch
    started = time.process_time()
    for n in range(number):
        batches[n]
    making = time.process_time() - started

    is_pinned = torch.cuda.is_available()
    stream = iterate_batches(batches, start=0, num_workers=workers, is_pinned=is_pinned)
    for _ in range(8 * workers):  # those made ahead
        next(stream)
    used, started = time.process_time(), time.perf_counter()
    for _ in range(number):
        next(stream)
    seconds = time.perf_counter() - started
    return {
        "made, positions/s of one core": round(positions / making),
        f"received from {workers}, positions/s": round(positions / seconds),
        "receiving, CPU ms a batch": round(1000 * (time.process_time() - used) / number, 1),
    }


def main(arguments: Arguments) -> None:
    torch.set_num_threads(1)
    text_tokenizer = TextTokenizer.load(SHIPPED / "storyworld")
    special, table = text_tokenizer.special_ids, dict[str, dict[str, float]]()
    with tempfile.TemporaryDirectory() as folder:
        documents = encode_randomly(folder, arguments)
        corpus = Corpus(documents, encode_texts=text_tokenizer.encode_batch)
        for name, make in OBJECTIVES.items():
            packing = Packing(
                row_length=arguments.row_length,
                special=special,
                objectives={name: make()},
                weights={name: 1.0},
                drop_rate=0.1,
                seed=arguments.seed,
            )
            batches = TrainBatches(RowStream(corpus, packing), micro_rows=arguments.rows)
            table[name] = measure(batches, arguments)
            print(name, table[name], flush=True)
    write_ledger(
        arguments.name,
        command=shlex.join(["python", *sys.argv]),
        seed=arguments.seed,
        figures={"rates": table},
        folder=arguments.ledger,
        hardware=describe_hardware("cpu"),
    )


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
