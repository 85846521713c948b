"""CUDA graphs recorded without a launch on the stream that records.

``torch.cuda.graph`` launches two small kernels on its stream first, for a generator of random
numbers. Once six kernels have run on other streams than the default one, the kernels of every graph
in the process begin later, .2 us after a small one (``docs/performance_notes.md`` has what was
measured), and a drawing step is hundreds of them. So the driver is asked to record, through
``cuda.bindings``, which PyTorch brings along since 2.10; without it PyTorch records.
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
    return torch.cuda.graph_pool_handle() if _driver() is None else torch.cuda.MemPool()


def capture(
    work: Callable[[], T], *, pool: Pool, device: torch.device
) -> tuple[Callable[[], None], T]:
    """Record what a function launches.

    Args:
        work: called once; it must not wait for the device, nor draw from PyTorch's generators.
        pool: of ``new_pool``, where what it allocates lies.
        device: that it runs on.

    Returns:
        A function that launches all of it on the current stream, and what ``work`` returned: its
        tensors are written at every launch.

    Raises:
        RuntimeError: what ``work`` launched cannot be recorded.
    """
    driver = _driver()
    with torch.cuda.device(device):
        torch.cuda.empty_cache()  # the pool cannot take what others have left
        if driver is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                made = work()
            return graph.replay, made
        stream = _stream_of(device)
        mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        with torch.cuda.stream(stream), torch.cuda.use_mem_pool(pool):
            _checked(driver.cuStreamBeginCapture(stream.cuda_stream, mode))
            try:
                made = work()
            except BaseException:
                driver.cuStreamEndCapture(stream.cuda_stream)
                raise
            recorded = _checked(driver.cuStreamEndCapture(stream.cuda_stream))
        launchable = _checked(driver.cuGraphInstantiate(recorded, 0))
        _checked(driver.cuGraphDestroy(recorded))
    return _Launch(driver, launchable, device), made


class _Launch:
    def __init__(self, driver: Any, graph: Any, device: torch.device) -> None:
        self._driver, self._graph, self._device = driver, graph, device
        weakref.finalize(self, driver.cuGraphExecDestroy, graph)  # it ends first, if it runs

    def __call__(self) -> None:
        with torch.cuda.device(self._device):
            stream = torch.cuda.current_stream().cuda_stream
            _checked(self._driver.cuGraphLaunch(self._graph, stream))


@lru_cache(maxsize=1)
def _driver() -> Any:
    """The driver's functions, or nothing where they are not installed or of another version."""
    try:
        driver: Any = importlib.import_module("cuda.bindings.driver")
    except ImportError:
        return None
    try:
        _checked(driver.cuDriverGetVersion())
    except RuntimeError:  # a driver that these functions do not know
        return None
    return driver


@lru_cache
def _stream_of(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _checked(answer: tuple[Any, ...]) -> Any:
    error, *values = answer
    if int(error) != 0:
        raise RuntimeError(f"the CUDA driver cannot record or launch a graph: {error!r}")
    return values[0] if values else None
