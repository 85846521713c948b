"""The atlas: composed sprites of all looks met so far, at four sizes, on one device."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, Dataset

from unimm.data.world.art import CANVAS, NUM_KEYPOINTS, compose
from unimm.data.world.packing import NUM_LOOKS, figure_of

NUM_LEVELS = 4  # mip levels of a sprite: 160, 80, 40, 20 pixels


class Atlas:
    """Sprites by slot, filled on demand; grows by about 140 kB a look.

    Attributes:
        levels: for each mip level ``(slots, 4, side, side)`` uint8, premultiplied.
        windows: ``(slots, 4)`` left, top, right, bottom of all that is drawn, in canvas pixels.
        boxes: ``(slots, 4)``, the same without the shadow.
        keypoints: ``(slots, NUM_KEYPOINTS, 2)`` x, y in canvas pixels.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._slot = np.full(NUM_LOOKS, -1, dtype=np.int64)
        self._num = 0
        self.levels = [self._empty(64, CANVAS >> level) for level in range(NUM_LEVELS)]
        self.windows = np.zeros((64, 4), dtype=np.float32)
        self.boxes = np.zeros((64, 4), dtype=np.float32)
        self.keypoints = np.zeros((64, NUM_KEYPOINTS, 2), dtype=np.float32)

    def _empty(self, count: int, side: int) -> Tensor:
        return torch.zeros(count, 4, side, side, dtype=torch.uint8, device=self.device)

    def _add(self, look: int, cells: "_Cells") -> None:
        if self._num == len(self.windows):
            for name in ("windows", "boxes", "keypoints"):
                table = getattr(self, name)
                setattr(self, name, np.concatenate([table, np.zeros_like(table)]))
            self.levels = [torch.cat([old, torch.zeros_like(old)]) for old in self.levels]
        for atlas, pixels in zip(self.levels, cells.levels, strict=True):
            atlas[self._num] = torch.from_numpy(pixels)
        self.windows[self._num], self.boxes[self._num] = cells.window, cells.box
        self.keypoints[self._num] = cells.keypoints
        self._slot[look] = self._num
        self._num += 1

    def slots(self, look: NDArray[np.int64]) -> NDArray[np.int64]:
        """Atlas places of looks, composing those never met."""
        self.fill(look)
        return self._slot[look]

    def fill(self, look: NDArray[np.int64], *, num_workers: int = 0) -> None:
        """Compose looks never met, by this process or by several."""
        missing = [int(number) for number in np.unique(look[self._slot[look] < 0])]
        if not missing:
            return
        composed = DataLoader(
            _Looks(missing), batch_size=None, num_workers=num_workers, collate_fn=_as_is
        )
        with _one_thread():
            for number, cells in zip(missing, composed, strict=True):
                self._add(number, cells)


class _Cells(NamedTuple):
    """What the atlas holds of one look: ``(4, side, side)`` uint8 a level, and where things are."""

    levels: list[NDArray[np.uint8]]
    window: tuple[float, float, float, float]
    box: tuple[float, float, float, float]
    keypoints: NDArray[np.float32]


def _as_is(cells: Any) -> Any:
    return cells


class _Looks(Dataset[_Cells]):
    """Looks by number; arrays, since tensors would take a file handle each between processes."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> _Cells:
        sprite = compose(figure_of(self.numbers[index]))
        levels: list[NDArray[np.uint8]] = []
        for level in range(NUM_LEVELS):
            small = avg_pool2d(sprite.rgba[None], 1 << level)[0] if level else sprite.rgba
            levels.append((small * 255).round().to(torch.uint8).numpy())
        return _Cells(levels, sprite.window, sprite.box, sprite.keypoints)


@contextmanager
def _one_thread() -> Generator[None]:
    """Sprites are small: threads that wait for each other cost more than they save.

    On a busy machine they cost ten times the work itself.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
