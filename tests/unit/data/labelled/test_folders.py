"""The layouts that real sets come in, at a few pictures each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from labelled_folders import (
    write_imagenet,
    write_kitti,
    write_nyu,
    write_spair,
    write_stereo_photo,
)

from unimm.data.labelled.imagenet import ImageNetConfig
from unimm.data.labelled.kitti import KittiConfig, garg_crop
from unimm.data.labelled.nyu import NyuConfig, eigen_crop
from unimm.data.labelled.spair import SpairConfig
from unimm.data.labelled.stereo_photo import StereoPhotoConfig, depth_of_disparity

CPU = torch.device("cpu")


def test_imagenet(tmp_path, caplog):
    config = ImageNetConfig(
        folder=str(write_imagenet(tmp_path)), image_size=16, num_validation=2, num_test=9
    )
    data = config.read(CPU)
    assert data.classes == ("tench", "goldfish")
    parts = (data.train, data.validation, data.test)
    assert sum(len(x) for x in parts[:2]) == 8 and len(data.test) == 2
    for part in parts:  # the colour says the class
        assert torch.equal(part.pixels.float().mean((2, 3)).argmax(1) // 2, part.need("labels"))
    assert "broken.JPEG" in caplog.text and "1 of" in caplog.text
    with pytest.raises(ValueError, match="no folder"):
        ImageNetConfig(folder=str(tmp_path / "elsewhere")).read(CPU)


def test_nyu(tmp_path, caplog):
    config = NyuConfig(folder=str(write_nyu(tmp_path)), image_size=48, num_validation=1)
    data = config.read(CPU)
    assert len(data.train) + len(data.validation) == 3 and len(data.test) == 2
    depth, known = data.test.need("depth"), data.test.need("has_depth")
    # The middle 48 columns of the ramp, inside Eigen's rows.
    assert torch.allclose(depth[0, 20, 0], torch.tensor(1 + 3 * 8 / 63), atol=2e-3)
    top, bottom, _, _ = eigen_crop(48, 64)
    assert known[0, top:bottom].all() and not known[0, :top].any() and not known[0, bottom:].any()
    assert data.train.need("has_depth").all()  # only scores are cropped
    assert "train_room_0003" in caplog.text


def test_kitti(tmp_path):
    config = KittiConfig(folder=str(write_kitti(tmp_path)), image_size=32, num_validation=1)
    data = config.read(CPU)
    assert [len(x) for x in (data.train, data.validation, data.test)] == [2, 1, 2]
    depth, known = data.test.need("depth"), data.test.need("has_depth")
    assert set(depth[known].tolist()) == {20.0}
    top, bottom, _, _ = garg_crop(32, 96)
    assert int(known[0].sum()) == 16 * len(range(top + top % 2, bottom, 2))
    assert data.depth_range[1] == 80


def test_spair(tmp_path, caplog):
    data = SpairConfig(folder=str(write_spair(tmp_path)), image_size=40, num_test=10).read(CPU)
    test = data.test
    assert test.pixels.shape == (2, 3, 40, 40) and test.need("pairs").tolist() == [[0, 1]]
    points, known = test.need("keypoints"), test.need("is_visible")
    assert int(known.sum()) == 4
    # 80x40 is padded by 20 rows above and below, then halved.
    assert points[0, :2].tolist() == [[0, 10], [39.5, 29.5]]
    assert points[1, :2].tolist() == [[15, 10], [25, 30]]
    assert test.need("boxes").tolist() == [[0, 10, 40, 30], [15, 10, 25, 30]]
    assert test.pixels[0, :, 20, 20].tolist() == pytest.approx([200, 10, 10], abs=12)
    assert test.pixels[0, :, 2, 20].tolist() == [127] * 3
    assert "000002-a-b:cat.json" in caplog.text


def test_stereo_photo(tmp_path):
    """Learned on renders, tested on squares of the photo."""
    folder = write_stereo_photo(tmp_path)
    config = StereoPhotoConfig(
        folder=str(folder), image_size=40, num_train=3, num_validation=2, num_test=3
    )
    data = config.read(CPU)
    assert [len(x) for x in (data.train, data.validation, data.test)] == [3, 2, 3]
    # Squares begin at columns 0, 10 and 20.
    assert data.test.pixels[:, 0, 5, 7].tolist() == [4 * 7, 4 * 17, 4 * 27]
    depth, known = data.test.need("depth"), data.test.need("has_depth")
    assert depth[1, 5, 7].item() == pytest.approx(0.193001 * 994.978 / (60 - 17 + 31.086))
    assert known[:2].all() and known[2, :, :-1].all() and not known[2, :, -1].any()
    assert depth_of_disparity(torch.tensor([float("nan")])).tolist() == [0]
    middle = replace(config, num_test=1).read(CPU).test
    assert torch.equal(middle.pixels[0], data.test.pixels[1])


def test_a_damaged_stereo_photo_is_named(tmp_path):
    folder = write_stereo_photo(tmp_path)
    config = StereoPhotoConfig(folder=str(folder), num_train=1, num_validation=1)
    disparity = folder / "motorcycle_disp.npz"
    disparity.write_bytes(disparity.read_bytes()[:300])
    with pytest.raises(ValueError, match="does not hold the stereo pair"):
        config.read(CPU)
    np.savez(disparity, np.ones((4, 4)))
    with pytest.raises(ValueError, match="but the disparity has \\(4, 4\\)"):
        config.read(CPU)
    (folder / "motorcycle_left.png").unlink()
    with pytest.raises(ValueError, match="motorcycle_left.png"):
        config.read(CPU)
