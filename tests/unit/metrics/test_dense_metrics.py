import pytest
import torch

from unimm.metrics.correspondence import keypoint_hits, summarise_hits
from unimm.metrics.segmentation import confusion, mean_iou


def test_points_are_right_within_a_tenth_of_the_larger_side():
    target = torch.tensor([[[10.0, 10.0], [30.0, 10.0]], [[5.0, 5.0], [6.0, 6.0]]])
    found = target + torch.tensor([[[2.9, 0.0], [0.0, 3.1]], [[0.0, 0.0], [9.0, 9.0]]])
    boxes = torch.tensor([[0.0, 0.0, 20.0, 30.0], [0.0, 0.0, 10.0, 5.0]])
    hits = keypoint_hits(found, target, boxes)
    assert hits.tolist() == [[True, False], [True, False]]
    known = torch.tensor([[True, True], [True, False]])
    assert summarise_hits(hits, known) == pytest.approx({"per point": 2 / 3, "per picture": 0.75})


def test_mean_iou_counts_classes_of_the_truth():
    target = torch.tensor([[0, 0, 1, -1], [1, 1, 0, 0]])
    predicted = torch.tensor([[0, 1, 1, 2], [1, 1, 0, 2]])
    counts = confusion(predicted, target, 3)
    assert counts.tolist() == [[2, 1, 1], [0, 3, 0], [0, 0, 0]]
    assert mean_iou(counts) == pytest.approx((2 / 4 + 3 / 4) / 2)
