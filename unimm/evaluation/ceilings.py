"""What a device can do at most, measured: bytes copied and products of matrices a second."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch

_COPY_BYTES = {"cuda": 2**32, "cpu": 2**26}
_MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}


class Ceilings(NamedTuple):
    """What nothing on this device exceeds.

    Attributes:
        bytes_per_second: read and written by a large copy inside the device's memory.
        flops_per_second: of a large product of matrices, a multiply-add being two operations.
    """

    bytes_per_second: float
    flops_per_second: float


def measure_ceilings(device: torch.device, dtype: torch.dtype, *, repeats: int = 15) -> Ceilings:
    """Time a large copy and a large product, the median of some calls.

    Args:
        device: to measure.
        dtype: of the matrices.
        repeats: calls of each.
    """
    source = torch.ones(_COPY_BYTES.get(device.type, 2**26), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = median(seconds_of(lambda: target.copy_(source), device, repeats=repeats))
    side = _MATMUL_SIDE.get(device.type, 1024)
    # Random values: a product of zeros draws less power and runs faster.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    multiplied = median(seconds_of(lambda: torch.mm(left, right), device, repeats=repeats))
    return Ceilings(2 * len(source) / copied, 2 * side**3 / multiplied)


def seconds_of(
    work: Callable[[], object], device: torch.device, *, repeats: int, num_warm: int = 2
) -> list[float]:
    """Seconds of each call, until the device has finished.

    Args:
        work: what is timed.
        device: that it runs on.
        repeats: calls that are timed.
        num_warm: calls before the first that is timed.
    """
    for _ in range(num_warm):
        work()
    times: list[float] = []
    for _ in range(repeats):
        wait_for(device)
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return times


def wait_for(device: torch.device) -> None:
    """Return when a device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
