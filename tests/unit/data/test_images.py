"""A folder of pictures, with the things that are found in real folders."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.data.images import FolderBatches, ImageFolder


def write_pictures(folder: Path, num: int, size: tuple[int, int] = (16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(num):
        array = np.full((size[1], size[0], 3), 10 * index, dtype=np.uint8)
        Image.fromarray(array).save(folder / f"{index:02d}.png")


def test_batches_hold_every_picture_once_a_round(tmp_path: Path) -> None:
    write_pictures(tmp_path / "deep" / "down", 6)
    batches = FolderBatches(ImageFolder(tmp_path, image_size=16), batch_size=3, seed=0)
    seen: list[int] = []
    for _ in range(2):
        batch = next(batches)
        assert batch.pixels.shape == (3, 3, 16, 16) and batch.pixels.dtype == torch.uint8
        assert batch.mask is None
        seen += batch.pixels[:, 0, 0, 0].tolist()
    assert sorted(seen) == [0, 10, 20, 30, 40, 50]


def test_order_follows_the_seed(tmp_path: Path) -> None:
    write_pictures(tmp_path, 12)
    folder = ImageFolder(tmp_path, image_size=16)
    a, b, c = (next(FolderBatches(folder, batch_size=12, seed=s)).pixels for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_corrupt_files_are_skipped_counted_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pictures(tmp_path, 4)
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    whole = (tmp_path / "03.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    batches = FolderBatches(ImageFolder(tmp_path, image_size=16), batch_size=4, seed=0)
    with caplog.at_level(logging.WARNING):
        pixels = [next(batches).pixels for _ in range(2)]
    assert all(batch.shape == (4, 3, 16, 16) for batch in pixels)
    assert batches.num_skipped >= 2
    assert "bad.png" in caplog.text and "cut.png" in caplog.text


def test_a_folder_of_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match="none of the 1 files"):
        next(FolderBatches(ImageFolder(tmp_path, image_size=16), batch_size=1, seed=0))


def test_wrong_size_is_named_or_cropped(tmp_path: Path) -> None:
    write_pictures(tmp_path, 1, size=(40, 20))
    with pytest.raises(ValueError, match=r"00\.png is 40x20 pixels, but 16x16.*is_cropped"):
        ImageFolder(tmp_path, image_size=16)[0]
    cropped = ImageFolder(tmp_path, image_size=16, is_cropped=True)[0]
    assert isinstance(cropped, torch.Tensor) and cropped.shape == (3, 16, 16)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        ImageFolder(tmp_path / "none", image_size=16)
    with pytest.raises(ValueError, match="holds no pictures"):
        ImageFolder(tmp_path, image_size=16)
