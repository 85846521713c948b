"""CUDA graphs recorded without a launch on the stream that records.

``torch.cuda.graph`` launches two small kernels on its stream first, for a generator of random
numbers. Once eight kernels have run on other streams than the default one, the kernels of every
graph in the process begin later, .2 us after a small one (``docs/performance_notes.md``), and a
drawing step is hundreds of them. So CUDA is asked to record through ``cuda.bindings``, which newer
PyTorch brings along; without it PyTorch records.
"""

import importlib
import weakref
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import torch

T = TypeVar("T")
Pool = Any
"""Memory that recordings share: what the last one no longer needs is given to the next."""


def new_pool() -> Pool:
    """Memory for recordings; it lives as long as one of them or this handle."""
    return torch.cuda.graph_pool_handle() if _runtime() is None else torch.cuda.MemPool()


def capture(
    work: Callable[[], T], *, pool: Pool, device: torch.device
) -> tuple[Callable[[], None], T]:
    """Record what a function launches.

    Args:
        work: called once; it must not wait for the device, nor draw from PyTorch's generators.
        pool: of ``new_pool``, where what it allocates lies.
        device: that it runs on, with its number.

    Returns:
        A function that launches all of it on the current stream, and what ``work`` returned: its
        tensors are written at every launch.

    Raises:
        RuntimeError: what ``work`` launched cannot be recorded.
    """
    cuda = _runtime()
    with torch.cuda.device(device):
        if cuda is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                made = work()
            return graph.replay, made
        torch.cuda.empty_cache()  # the pool cannot take what others have left
        stream = _stream_of(device)
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        with torch.cuda.stream(stream), torch.cuda.use_mem_pool(pool):
            _checked(cuda.cudaStreamBeginCapture(stream.cuda_stream, mode))
            try:
                made = work()
            except BaseException:
                cuda.cudaStreamEndCapture(stream.cuda_stream)
                raise
            recorded = _checked(cuda.cudaStreamEndCapture(stream.cuda_stream))
        launchable = _checked(cuda.cudaGraphInstantiate(recorded, 0))
        _checked(cuda.cudaGraphDestroy(recorded))
    return _Launch(cuda, launchable, pool, device.index), made


class _Launch:
    """A recorded graph; it holds the memory that the graph writes to."""

    def __init__(self, cuda: Any, graph: Any, pool: Pool, index: int) -> None:
        self._cuda, self._graph, self._pool, self._index = cuda, graph, pool, index
        weakref.finalize(self, cuda.cudaGraphExecDestroy, graph)  # it ends first, if it runs

    def __call__(self) -> None:
        # Some hundred launches make a picture: what each costs the host is kept short.
        if torch.cuda.current_device() != self._index:
            with torch.cuda.device(self._index):
                return self()
        stream = torch._C._cuda_getCurrentRawStream(self._index)
        _checked(self._cuda.cudaGraphLaunch(self._graph, stream))


@lru_cache(maxsize=1)
def _runtime() -> Any:
    """CUDA's functions, or nothing where they are not installed or too new for the driver."""
    if torch.cuda.get_allocator_backend() != "native":  # the only one with pools of our own
        return None
    try:
        cuda: Any = importlib.import_module("cuda.bindings.runtime")
        _checked(cuda.cudaGetDevice())
    except (ImportError, RuntimeError):
        return None
    return cuda


@lru_cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _checked(answer: tuple[Any, ...]) -> Any:
    error = answer[0]
    if error != 0:
        raise RuntimeError(f"CUDA cannot record or launch a graph: {error!r}")
    return answer[1] if len(answer) > 1 else None
