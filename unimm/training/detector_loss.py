"""What the detector is trained to minimise: heat map, boxes, attributes, background.

Legend: ``B`` pictures, ``F`` figures of a picture, ``G`` groups, ``h, w`` the heat map's size.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

from unimm.judges.detector import Detector, FeatureMaps, split_attributes
from unimm.judges.labels import ATTRIBUTES, GROUPS, NUM_SPECIES, Labels

MIN_VISIBILITY = 0.2  # a figure that is hidden more than this is not asked for
_ATTRIBUTE_WEIGHTS = {"kind": 1.0, "tint": 1.0, "headwear": 1.0, "style": 1.0}
_BOX_WEIGHT, _BACKGROUND_WEIGHT = 1.0, 0.3
_JITTER = 0.08  # of a box's sides: attributes are read from boxes that are never exact


def detector_loss(
    detector: Detector, maps: FeatureMaps, labels: Labels, generator: Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Cost of a batch.

    Args:
        detector: reads the attributes.
        maps: its ``forward`` over the batch.
        labels: the truth.
        generator: on the pixels' device; jitters the boxes.

    Returns:
        The total to differentiate, and its detached parts by name.
    """
    is_there = labels.visibility >= MIN_VISIBILITY  # (B, F)
    num = is_there.sum().clamp(min=1)
    group = (labels.attributes[..., 0] >= NUM_SPECIES).long()  # (B, F)
    parts = {"heat": _focal(maps.heat.float(), _heat_target(maps, labels, is_there, group)) / num}
    parts["box"] = _BOX_WEIGHT * (_box_error(maps, labels, group) * is_there).sum() / num

    boxes = labels.boxes
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device)
    boxes = boxes + _JITTER / 2 * noise * (boxes[..., 2:] - boxes[..., :2]).repeat(1, 1, 2)
    logits = detector.read_attributes(maps.features, boxes, group)
    for index, (name, part) in enumerate(zip(ATTRIBUTES, split_attributes(logits), strict=True)):
        cost = functional.cross_entropy(
            part.flatten(0, 1), labels.attributes[..., index].flatten(), reduction="none"
        )
        counts = is_there & (group == 0) if name == "headwear" else is_there
        cost = torch.where(counts, cost.view(counts.shape), 0.0)
        parts[name] = _ATTRIBUTE_WEIGHTS[name] * cost.sum() / counts.sum().clamp(min=1)
    background = functional.cross_entropy(maps.background.float(), labels.background)
    parts["background"] = _BACKGROUND_WEIGHT * background
    total = torch.stack(list(parts.values())).sum()
    return total, {name: part.detach() for name, part in parts.items()}


def _cells(maps: FeatureMaps, labels: Labels) -> tuple[Tensor, Tensor]:
    """Middles and sizes of boxes in cells of the heat map, both ``(B, F, 2)``."""
    height, width = maps.heat.shape[-2:]
    scale = labels.boxes.new_tensor([width, height])
    low, high = labels.boxes[..., :2] * scale, labels.boxes[..., 2:] * scale
    return (low + high) / 2, high - low


def _heat_target(maps: FeatureMaps, labels: Labels, is_there: Tensor, group: Tensor) -> Tensor:
    """Gaussian bumps at the figures' middles, ``(B, G, h, w)``, 1 in the middle's cell."""
    height, width = maps.heat.shape[-2:]
    middle, size = _cells(maps, labels)
    cell = middle.floor()[..., None, None]  # (B, F, 2, 1, 1)
    rows = torch.arange(height, device=cell.device)[:, None]
    columns = torch.arange(width, device=cell.device)[None]
    distance = (columns - cell[:, :, 0]).square() + (rows - cell[:, :, 1]).square()
    sigma = (0.1 * size.amin(-1)).clamp(min=0.7)[..., None, None]
    bumps = (-distance / (2 * sigma.square())).exp() * is_there[..., None, None]  # (B, F, h, w)
    return torch.stack(
        [(bumps * (group == g)[..., None, None]).amax(1) for g in range(len(GROUPS))], dim=1
    )


def _focal(logits: Tensor, target: Tensor) -> Tensor:
    """Summed penalty-reduced focal loss, Eq. 1 of "Objects as Points" (alpha 2, beta 4)."""
    is_middle = target == 1
    share = logits.sigmoid()
    found = (1 - share).square() * functional.logsigmoid(logits)
    empty = (1 - target).pow(4) * share.square() * functional.logsigmoid(-logits)
    return -torch.where(is_middle, found, empty).sum()


def _box_error(maps: FeatureMaps, labels: Labels, group: Tensor) -> Tensor:
    """Absolute error of offset (cells) and log size at the true middles, ``(B, F)``."""
    height, width = maps.heat.shape[-2:]
    middle, size = _cells(maps, labels)
    cell = middle.floor()
    column, row = cell[..., 0].long().clamp(0, width - 1), cell[..., 1].long().clamp(0, height - 1)
    box = maps.box.float().view(len(maps.box), len(GROUPS), 4, height * width)
    index = (group * 4 * height * width + row * width + column)[..., None]
    index = index + torch.arange(4, device=index.device) * height * width  # (B, F, 4)
    said = box.flatten(1).gather(1, index.flatten(1)).view(index.shape)
    target = torch.cat([middle - cell, size.clamp(min=0.5).log()], dim=-1)
    return (said - target).abs().sum(-1)
