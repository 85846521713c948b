"""How rows are cut for Triton's kernels, whose blocks are powers of two.

Triton's own ``next_power_of_2`` is not there on a CPU.
"""


def next_power(number: int) -> int:
    """The least power of two that is as large."""
    return 1 << (number - 1).bit_length()


def cut_row(size: int, *, numbers_a_warp: int) -> dict[str, int]:
    """A row of so many numbers as one block, and its warps, of which a program has 1 to 16."""
    block = next_power(size)
    return {"block": block, "num_warps": min(max(1, block // numbers_a_warp), 16)}
