from typing import Any

import pytest
import torch

from unimm.data.labelled.storyworld import KINDS, Label, StoryworldConfig
from unimm.data.world.render import FAR

CPU = torch.device("cpu")


@pytest.mark.long  # composes every kind once
def test_single_things_of_every_kind():
    data = StoryworldConfig(num_train=80, num_validation=4, num_test=4, image_size=32).read(CPU)
    assert data.train.pixels.shape == (80, 3, 32, 32) and data.classes == KINDS
    labels = data.train.need("labels")
    assert sorted(labels.tolist()) == list(range(80))
    class_map = data.train.need("class_map")
    for i in (0, 40):
        assert set(class_map[i].unique().tolist()) == {0, 1 + int(labels[i])}
    depth, known = data.train.need("depth"), data.train.need("has_depth")
    low, high = data.depth_range
    assert low < float(depth[known].min()) and float(depth[known].max()) <= high == FAR
    # Further sets show other scenes.
    assert not torch.equal(data.train.pixels[:4], data.validation.pixels)
    assert not torch.equal(data.test.pixels, data.validation.pixels)


def test_workers_change_nothing():
    sizes: Any = {"num_train": 70, "num_validation": 2, "num_test": 2, "image_size": 16}
    alone = StoryworldConfig(**sizes, scenes="mixed").read(CPU)
    helped = StoryworldConfig(**sizes, scenes="mixed", num_workers=2).read(CPU)
    assert torch.equal(alone.train.pixels, helped.train.pixels)


def test_pairs_show_one_kind_in_other_looks():
    config = StoryworldConfig(
        scenes="pairs", num_train=8, num_validation=2, num_test=2, image_size=64
    )
    data = config.read(CPU).train
    pairs, labels = data.need("pairs"), data.need("labels")
    assert torch.equal(labels[pairs[:, 0]], labels[pairs[:, 1]])
    points, boxes = data.need("keypoints"), data.need("boxes")
    seen = data.need("is_visible")
    left, top, right, bottom = boxes[:, None].unbind(-1)
    inside = (points[..., 0] >= left) & (points[..., 0] <= right)
    inside &= (points[..., 1] >= top) & (points[..., 1] <= bottom)
    assert bool(inside[seen].all()) and float(seen.float().mean()) > 0.9
    with pytest.raises(ValueError, match="pairs need even numbers"):
        StoryworldConfig(scenes="pairs", num_train=3)


def test_tints_and_backgrounds_are_classes_too():
    sizes: Any = {"num_train": 6, "num_validation": 2, "num_test": 2, "image_size": 16}
    cases: tuple[tuple[Label, int], ...] = (("tint", 11), ("background", 6))
    for label, count in cases:
        data = StoryworldConfig(**sizes, label=label).read(CPU)
        assert len(data.classes) == count and int(data.train.need("labels").max()) < count
