"""Mixtures of encoded folders: how often the documents of each are seen.

Weights are read when training starts, so they can be changed without encoding anything again.

Shapes: D documents of an epoch.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unimm.data.shard_index import replace

MIXTURE = "mixture.json"


def write_mixture(folder: str | Path, weights: Mapping[str, float]) -> Path:
    """Write which folders are mixed, and how.

    Args:
        folder: of the mixture.
        weights: folder of shards, relative to ``folder`` -> how often one of its documents is seen,
            relative to one of the others.
    """
    path = Path(folder) / MIXTURE
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{MIXTURE}.{os.getpid()}.partial")
    text = json.dumps({"weights": dict(weights)}, indent=1) + "\n"
    temporary.write_text(text, encoding="utf-8")
    replace(temporary, path)
    return path


def read_mixture(folder: Path) -> dict[Path, float]:
    """Read the folders of a mixture with their weights; a plain folder is a mixture of itself.

    Raises:
        ValueError: the file is not as ``write_mixture`` writes it.
    """
    path = folder / MIXTURE
    if not path.is_file():
        return {folder: 1.0}
    try:
        weights = json.loads(path.read_text(encoding="utf-8"))["weights"]
        found = {folder / str(name): float(weight) for name, weight in weights.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f'{path} must hold {{"weights": {{"folder": 1.0, ...}}}}: {error!r}'
        ) from None
    if not found or not all(weight > 0 for weight in found.values()):
        raise ValueError(f"{path} needs positive weights, got {weights}; leave others out")
    return found


def epoch_order(
    sources: NDArray[np.int64], weights: Sequence[float], *, seed: int, epoch: int
) -> tuple[NDArray[np.int64], np.random.Generator]:
    """Say which documents an epoch shows, ``(D,)``, in random order: a pure function.

    An epoch shows every document of the source of the largest weight once, and of the others as
    large a share as their weight is of it. They go on through their own random order from epoch
    to epoch, so all their documents are seen equally often.

    Args:
        sources: number of its source for every document; rising.
        weights: of the sources.
        seed: of the run.
        epoch: from 0.

    Returns:
        The documents, and the epoch's generator for what else is drawn at random.
    """
    key = [seed % 2**64, epoch]
    rng = np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
    if len(set(weights)) == 1:
        return rng.permutation(len(sources)), rng
    chosen: list[NDArray[np.int64]] = []
    bounds = np.searchsorted(sources, np.arange(len(weights) + 1))
    counts = np.diff(bounds)
    largest = Fraction(max(weight for weight, n in zip(weights, counts, strict=True) if n))
    for source, weight in enumerate(weights):
        first, count = int(bounds[source]), int(counts[source])
        if count == 0:
            continue
        rate = Fraction(weight) / largest * count  # documents an epoch
        start, stop = math.floor(rate * epoch), math.floor(rate * (epoch + 1))
        for tour in range(start // count, -(-stop // count)):
            order = np.random.default_rng([seed % 2**64, source, tour]).permutation(count)
            part = slice(max(start - tour * count, 0), min(stop - tour * count, count))
            chosen.append(first + order[part])
    return rng.permutation(np.concatenate(chosen)), rng
