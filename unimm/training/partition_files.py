"""A run's weights, moments and average on disk: named stretches that any cut can be read from.

Every rank writes what it holds and reads what it needs, slice by slice from mapped files, so that
no rank ever holds more than its own share and a buffer. A tensor is named ``kind/start/parameter``.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unimm.distributed import rank, world_size
from unimm.training.partition import Partition, Piece

_UPDATES = "num_updates"  # AdamW's, in the metadata of every file
_BUFFER = 2**30  # bytes that are copied to the host before they are written


def write_pieces(folder: Path, partition: Partition) -> None:
    """Write this rank's part; every rank must call it, and what all hold is shared out.

    Args:
        folder: that exists.
        partition: of the run, with the moments of its last step.
    """
    kept: dict[str, Tensor] = {}
    size = number = 0
    note = {_UPDATES: str(partition.num_updates)}
    for name, tensor in _own_part(partition):
        if kept and size + tensor.nbytes > _BUFFER:
            save_file(kept, folder / f"rank_{rank():05d}_{number:04d}.safetensors", note)
            kept, size, number = {}, 0, number + 1
        kept[name] = tensor.cpu().clone() if tensor.device.type == "cpu" else tensor.cpu()
        size += tensor.nbytes
    save_file(kept, folder / f"rank_{rank():05d}_{number:04d}.safetensors", note)


def _own_part(partition: Partition) -> Iterator[tuple[str, Tensor]]:
    for kind, piece, tensor in _values(partition):
        start, end = 0, piece.length
        if piece.is_shared:
            start, end = (piece.length * k // world_size() for k in (rank(), rank() + 1))
        if end > start:
            yield f"{kind}/{piece.start + start}/{piece.name}", tensor[start:end]


def read_pieces(folder: Path, partition: Partition) -> None:
    """Fill a partition from what another, of any stage and any number of ranks, wrote.

    Args:
        folder: with the files of all ranks.
        partition: to fill; the caller publishes it.

    Raises:
        ValueError: the files are damaged, incomplete, or of another model.
    """
    wanted: dict[tuple[str, str], tuple[Piece, Tensor]] = {}
    shapes, held = partition.shapes(), Counter[tuple[str, str]]()
    for path in sorted(folder.glob("rank_*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                if not wanted:
                    values = _values(partition, int(file.metadata()[_UPDATES]))
                    wanted = {(kind, piece.name): (piece, own) for kind, piece, own in values}
                for key in file.keys():  # noqa: SIM118
                    kind, start, name = key.split("/", 2)
                    source = file.get_slice(key)
                    held[kind, name] += source.get_shape()[0]
                    if (kind, name) in wanted:
                        _copy_overlap(*wanted[kind, name], source, int(start))
        except SafetensorError as error:
            raise ValueError(
                f"{path} ({path.stat().st_size} bytes) is damaged ({error}): delete this "
                "checkpoint to use the one before"
            ) from error
    needed = {
        (kind, name): shape.numel()
        for name, shape in shapes.items()
        for kind in partition.kinds(name)
    }
    for kind, name in sorted(needed.keys() | held.keys()):
        if held[kind, name] != needed.get((kind, name)):
            raise ValueError(
                f"checkpoint {folder} holds {held[kind, name]} values of {kind} {name}, this run "
                f"needs {needed.get((kind, name), 0)}: it is of another model or not whole; delete "
                "it to use the one before"
            )


def _copy_overlap(piece: Piece, target: Tensor, source: Any, start: int) -> None:
    """Copy what a stored stretch, mapped and not read yet, and a piece have in common."""
    first = max(piece.start, start)
    last = min(piece.start + piece.length, start + source.get_shape()[0])
    if first < last:
        values = source[first - start : last - start]
        with torch.no_grad():
            target[first - piece.start : last - piece.start].copy_(values)


def _values(
    partition: Partition, num_updates: int | None = None
) -> Iterator[tuple[str, Piece, Tensor]]:
    """All that a run must keep: kind, piece, and its tensor ``(length,)``."""
    for piece in partition.pieces:
        yield "weight", piece, piece.weight
    moments = partition.moments(num_updates)
    for piece, average, own in zip(partition.trained, partition.average, moments, strict=True):
        yield "average", piece, average
        for kind, tensor in own.items():
            yield kind, piece, tensor
