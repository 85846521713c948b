"""What a device can do at most, measured: bytes copied and products of matrices a second."""

import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

_COPY_BYTES = {"cuda": 2**32, "cpu": 2**26}
_MATMUL_SIDE = {"cuda": 8192, "cpu": 1024}
_AT_ONCE = {"cuda": 50}
"""Products that a GPU is given at a time: it waits for none."""


class Ceilings(NamedTuple):
    """What nothing on this device exceeds.

    Attributes:
        bytes_per_second: read and written by a large copy inside the device's memory.
        flops_per_second: of a large product of matrices, a multiply-add being two operations.
    """

    bytes_per_second: float
    flops_per_second: float

    def row(self) -> dict[str, float]:
        """For a table."""
        return {
            "copy, GB/s": float(f"{self.bytes_per_second / 1e9:.4g}"),
            "matmul, TFLOP/s": float(f"{self.flops_per_second / 1e12:.4g}"),
        }


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
    multiply, operations = _product(device, dtype)
    multiplied = median(seconds_of(multiply, device, repeats=repeats))
    return Ceilings(2 * len(source) / copied, operations / multiplied)


def measure_held_flops(device: torch.device, dtype: torch.dtype, *, seconds: float) -> float:
    """Operations a second of the same product, repeated without a pause.

    A GPU at the limit of its power runs slower after some tenths of a second: this is what a
    training step, which lasts, could reach.

    Args:
        device: to measure.
        dtype: of the matrices.
        seconds: how long; the second half counts.
    """
    multiply, operations = _product(device, dtype)
    at_once, times = _AT_ONCE.get(device.type, 1), list[float]()
    while not times or sum(times) < seconds:
        times += seconds_of(
            lambda: [multiply() for _ in range(at_once)], device, repeats=1, num_warm=0
        )
    return at_once * operations / median(times[len(times) // 2 :])


def _product(device: torch.device, dtype: torch.dtype) -> tuple[Callable[[], Tensor], int]:
    """A large product, and its operations."""
    side = _MATMUL_SIDE.get(device.type, 1024)
    # Random values: a product of zeros draws less power and runs faster.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(side, side, generator=generator, device=device).to(dtype) for _ in range(2)
    )
    return lambda: torch.mm(left, right), 2 * side**3


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
