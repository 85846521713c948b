"""Functions of tensors recorded as CUDA graphs: one launch instead of one a kernel.

A decoding step of a small trunk is hundreds of kernels of a few microseconds each: the processor's
launches take longer than the work.
"""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from unimm.nn.capture import Pool, capture, new_pool

MOST_GRAPHS = 64
"""Recordings kept at once: when one more comes, all are dropped."""
TOGETHER = 8
"""Calls of ``repeat`` that one recording holds: between launches a GPU rests some microseconds."""

_is_on = True


@contextmanager
def unrecorded() -> Iterator[None]:
    """Run every function itself meanwhile, as on a CPU: to count what it calls, or to compare."""
    global _is_on
    before, _is_on = _is_on, False
    try:
        yield
    finally:
        _is_on = before


def _can_record(x: Tensor) -> bool:
    return _is_on and x.is_cuda  # the CPU has nothing to record with


def _key_of(key: Hashable, inputs: tuple[Tensor, ...]) -> Hashable:
    # Tensors of inference mode cannot be written to outside of it.
    mode = torch.is_inference_mode_enabled()
    return (key, mode, *((x.shape, x.dtype) for x in inputs))


class _Graph(NamedTuple):
    launch: Callable[[], None]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Recorder:
    """Records a function when its shapes come for the second time, and repeats it from then on.

    Shapes that come once cost nothing; the eager call before a recording also warms its kernels
    up. What a recording reads or writes beside its inputs, such as weights, must stay in its place.
    """

    def __init__(self) -> None:
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, _Graph] = {}
        self._pool: Pool | None = None

    def __reduce__(self) -> tuple[type["Recorder"], tuple[()]]:
        return Recorder, ()  # a copy of a model records for itself

    def run(self, key: Hashable, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """As ``run_all``, for a function that gives one tensor."""
        return self.run_all(key, lambda *given: (function(*given),), *inputs)[0]

    def run_all(
        self, key: Hashable, function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        """Call a function, or repeat it.

        Args:
            key: all that makes it another function: what it reads beside the inputs, options.
            function: of tensors on one device; it must not wait for the device, nor depend on
                numbers on the host that ``key`` does not hold.
            inputs: of the function.

        Returns:
            What it returns, in memory of its own.
        """
        if not _can_record(inputs[0]):
            return function(*inputs)
        key = _key_of(key, inputs)
        if key not in self._graphs:
            if key not in self._seen:
                self._seen.add(key)
                return function(*inputs)
            self._graphs[key] = self._record(function, inputs)
        found = self._graphs[key]
        for buffer, given in zip(found.inputs, inputs, strict=True):
            buffer.copy_(given)
        found.launch()
        return tuple(x.clone() for x in found.outputs)  # the next call writes over them

    def repeat(
        self,
        key: Hashable,
        function: Callable[..., None],
        times: int,
        *state: Tensor,
        after: Callable[[], None],
    ) -> None:
        """Call a function time after time that leaves in its tensors what the next call reads.

        Nothing is copied between the calls: ``TOGETHER`` of them are one launch.

        Args:
            key: as in ``run_all``.
            function: as in ``run_all``, but it writes to its arguments and returns nothing.
            times: calls.
            state: its arguments, each in memory of its own; they hold the result.
            after: told of every call when it was launched.
        """
        if not _can_record(state[0]):
            for _ in range(times):
                function(*state)
                after()
            return
        key = _key_of(key, state)
        if key not in self._seen:  # run itself, it warms its kernels up
            self._seen.add(key)
            function(*state)
            after()
            times -= 1
        together, rest = divmod(times, TOGETHER)
        for count, size in ((together, TOGETHER), (rest, 1)):
            if count == 0:
                continue
            part = (key, size)
            if part not in self._graphs:
                self._graphs[part] = self._record(_repeated(function, size), state)
            found = self._graphs[part]
            for buffer, given in zip(found.inputs, state, strict=True):
                buffer.copy_(given)
            for _ in range(count):
                found.launch()
                for _ in range(size):
                    after()
            for buffer, given in zip(found.inputs, state, strict=True):
                given.copy_(buffer)

    def _record(
        self, function: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]
    ) -> _Graph:
        if len(self._graphs) >= MOST_GRAPHS:
            self._graphs.clear()
            self._pool = None
        self._pool = self._pool or new_pool()
        buffers = tuple(x.clone() for x in inputs)
        launch, outputs = capture(
            lambda: function(*buffers), pool=self._pool, device=inputs[0].device
        )
        return _Graph(launch, buffers, outputs)


def _repeated(function: Callable[..., None], times: int) -> Callable[..., tuple[Tensor, ...]]:
    """A function that calls another so many times with the same tensors."""

    def run(*given: Tensor) -> tuple[Tensor, ...]:
        for _ in range(times):
            function(*given)
        return ()

    return run
