"""Many tensors as one buffer: a batch crosses processes, and the bus to a GPU, in one piece.

Every tensor by itself is a file of shared memory that a loader worker opens and the run maps, a
piece of pinned memory, and a copy to the device; a batch has about twenty of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes; compiled kernels want 16


@dataclass(frozen=True)
class Place:
    """What is left of a tensor that lies in a buffer; places are in the buffer's order."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Room it takes, up to the next tensor."""
        size = self.dtype.itemsize * torch.Size(self.shape).numel()
        return -(-size // _ALIGNMENT) * _ALIGNMENT

    @staticmethod
    def of(tensor: Tensor) -> "Place":
        """The place of a tensor."""
        return Place(tuple(tensor.shape), tensor.dtype)


def join(tensors: Sequence[Tensor], *, is_shared: bool = False) -> Tensor:
    """Put tensors of one device into a buffer ``(num_bytes,)`` uint8.

    Tensors that ``split`` cut from a buffer are given back as that buffer, without a copy.

    Args:
        tensors: one or more.
        is_shared: a new buffer is to be shared memory, so that sending it copies nothing.
    """
    places = [Place.of(tensor) for tensor in tensors]
    total = sum(place.num_bytes for place in places)
    storage = tensors[0].untyped_storage()
    if storage.nbytes() == total and all(
        tensor.is_contiguous() and tensor.data_ptr() == found.data_ptr()
        for tensor, found in zip(tensors, _cut(storage, places), strict=True)
    ):
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)
    buffer = torch.empty(0 if is_shared else total, dtype=torch.uint8, device=storage.device)
    if is_shared:
        buffer.set_(torch.UntypedStorage._new_shared(total))  # pyright: ignore
    for tensor, copy in zip(tensors, split(buffer, places), strict=True):
        copy.copy_(tensor)
    return buffer


def split(buffer: Tensor, places: Sequence[Place]) -> Iterator[Tensor]:
    """Cut a buffer into its tensors, which share its memory."""
    return _cut(buffer.untyped_storage(), places)


def _cut(storage: torch.UntypedStorage, places: Sequence[Place]) -> Iterator[Tensor]:
    start = 0
    for place in places:
        empty = torch.empty(0, dtype=place.dtype, device=storage.device)
        # Not ``view``: autograd and the compiler would see views of one another.
        yield empty.set_(storage, start // place.dtype.itemsize, place.shape)  # pyright: ignore
        start += place.num_bytes
