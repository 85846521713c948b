"""Two programs timed in turns, so that what a machine does meanwhile happens to both."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from statistics import median

import torch

from unimm.evaluation.ceilings import seconds_of


@dataclass(frozen=True, kw_only=True)
class Program:
    """Something that is done over and over.

    Attributes:
        run: does it once.
        settings: makes the context that it runs in: PyTorch's global settings of its authors.
    """

    run: Callable[[], object]
    settings: Callable[[], AbstractContextManager[object]] = nullcontext


def in_turns(
    ours: Program,
    theirs: Program,
    *,
    device: torch.device,
    turns: int = 3,
    calls: int = 1,
    num_warm: int = 1,
    per_call: float = 1.0,
) -> dict[str, float]:
    """Time two programs, ours, theirs, ours, theirs ...

    Before the first turn each runs on its own, twice, to compile and record.

    Args:
        ours: the first.
        theirs: the second.
        device: that they run on.
        turns: of each.
        calls: that are timed in a turn, the median counts.
        num_warm: calls at the beginning of a turn that are not timed.
        per_call: what a call does, such as pictures: times are given for one of them.

    Returns:
        Milliseconds ``ours`` and ``theirs``, the ``ratio`` of the medians, and the ``lowest`` and
        ``highest`` ratio of a turn's two times.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for program in (ours, theirs):
        _turn(program, device, calls=1, num_warm=1)
    for _ in range(turns):
        for program, found in zip((ours, theirs), times, strict=True):
            found.append(_turn(program, device, calls=calls, num_warm=num_warm))
    own, other = (1000 * median(found) / per_call for found in times)
    ratios = [b / a for a, b in zip(*times, strict=True)]
    figures = {
        "ours": own,
        "theirs": other,
        "ratio": other / own,
        "lowest": min(ratios),
        "highest": max(ratios),
    }
    return {name: float(f"{value:.4g}") for name, value in figures.items()} | {"turns": turns}


def _turn(program: Program, device: torch.device, *, calls: int, num_warm: int) -> float:
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the other program's activations
    with program.settings():
        return median(seconds_of(program.run, device, repeats=calls, num_warm=num_warm))
