"""Mean intersection over union, pure functions. Legend: ``C`` classes."""

import torch
from torch import Tensor


def confusion(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Counts ``(C, C)`` of true (rows) and predicted classes; negative targets are left out."""
    known = target >= 0
    index = target[known].long() * num_classes + predicted[known].long()
    return torch.bincount(index, minlength=num_classes**2).view(num_classes, num_classes)


def mean_iou(counts: Tensor) -> float:
    """Mean over the classes that occur in the truth of intersection over union."""
    both = counts.diagonal().double()
    union = counts.sum(0) + counts.sum(1) - counts.diagonal()
    occurs = counts.sum(1) > 0
    return float((both[occurs] / union[occurs]).mean())
