"""Two programs timed in turns, so that what a machine does meanwhile happens to both."""

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import torch

from unimm.evaluation.ceilings import seconds_of

Program = Callable[[], object]
"""Something that is done over and over: a call does it once."""


class Apart:
    """A program in a process of its own, which is how it runs elsewhere.

    Neither finds PyTorch's settings, memory or streams as the other left them: a program that
    compiles or records on streams of its own would slow our recordings (``unimm/nn/capture.py``).
    The process ends when nobody holds the other end of its pipe, so also when this one is killed,
    which workers of a ``ProcessPoolExecutor`` survive.

    Args:
        make: makes the program in its process; ``pickle`` must be able to send it there.
        device: that it runs on.

    Raises:
        RuntimeError: here or later, with the traceback of what failed in the process.
    """

    def __init__(self, make: Callable[[], Program], *, device: torch.device) -> None:
        context = multiprocessing.get_context("spawn")  # a fork cannot use a GPU
        self._end, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, make, device))
        self._process.start()
        other.close()

    def turn(self, **asked: int) -> float:
        """As ``turn_of`` of the program, there."""
        try:
            self._end.send(asked)
            answer = self._end.recv()
        except (EOFError, ConnectionError) as error:
            self._process.join()
            code = self._process.exitcode
            raise RuntimeError(f"the other program's process ended with {code}") from error
        if isinstance(answer, str):
            raise RuntimeError(f"the other program failed:\n{answer}")
        return answer

    def __enter__(self) -> "Apart":
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()
        self._process.join(10)
        self._process.kill()  # in the middle of a turn
        self._process.join()


def _serve(end: Connection, make: Callable[[], Program], device: torch.device) -> None:
    program: Program | None = None
    while True:
        try:
            asked: Any = end.recv()
        except EOFError:  # nobody asks any more
            return
        try:
            program = program or make()
            answer: float | str = turn_of(program, device, **asked)
        except Exception:
            answer = traceback.format_exc()
        end.send(answer)


def in_turns(
    ours: Program,
    theirs: Program | Apart,
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

    def take(program: Program | Apart, calls: int, num_warm: int) -> float:
        if isinstance(program, Apart):
            return program.turn(calls=calls, num_warm=num_warm)
        return turn_of(program, device, calls=calls, num_warm=num_warm)

    for program in (ours, theirs):
        take(program, 1, 1)
    for _ in range(turns):
        for program, found in zip((ours, theirs), times, strict=True):
            found.append(take(program, calls, num_warm))
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


def turn_of(program: Program, device: torch.device, *, calls: int, num_warm: int) -> float:
    """The median seconds of a program's calls; the next finds the memory that they took free."""
    found = median(seconds_of(program, device, repeats=calls, num_warm=num_warm))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found
