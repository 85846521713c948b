"""Objects found in a picture, and how their boxes stand to each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from unimm.evaluation.matching import Box

_LEAST_OFFSET = 1e-3  # pixels: less is no offset


@dataclass(frozen=True, kw_only=True)
class Found:
    """One object.

    Attributes:
        kind: its class.
        box: left, top, right, bottom in pixels.
        score: how sure the detector is, 0 to 1.
        looks: ``color``, ``headwear``, ``size``, ``style`` -> word, as far as a judge knows them.
    """

    kind: str
    box: Box
    score: float
    looks: Mapping[str, str] = field(default_factory=dict)


def intersection_over_union(a: Box, b: Box) -> float:
    """Of boxes that hold their last pixel, as GenEval counts: ten pixels from 0 to 9."""

    def area(box: Box) -> float:
        return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)

    shared = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    union = area(a) + area(b) - shared
    return shared / union if union else 0.0


@dataclass(frozen=True, kw_only=True)
class BoxRelations:
    """How a relation is read from two boxes.

    Attributes:
        margin: share of the widths' (heights') sum by which two middles must differ at least.
        least_share: the offset beyond the margin, as a share of the whole distance, from which a
            relation holds; below .707 two can hold at once.
        depth_margin: share of the heights' sum by which the nearer one's foot must be lower.
        most_apart: share of the widths' sum by which two that stand one before the other may differ
            sideways at most.
    """

    margin: float = 0.1
    least_share: float = 0.5
    depth_margin: float = 0.02
    most_apart: float = 0.4

    def between(self, a: Box, b: Box) -> set[str]:
        """Every relation of ``a`` to ``b``: sides as in GenEval, and before or behind."""
        return self.sides(a, b) | self.depth(a, b)

    def sides(self, a: Box, b: Box) -> set[str]:
        """``left of``, ``right of``, ``above``, ``below``.

        The offset of the middles is shrunk by the margin, then divided by the unshrunk distance.
        """
        boxes = np.array([a, b], dtype=float).reshape(2, 2, 2)
        offset = boxes[0].mean(0) - boxes[1].mean(0)
        size = np.abs(boxes[:, 1] - boxes[:, 0]).sum(0)  # widths' sum, heights' sum
        shrunk = np.maximum(np.abs(offset) - self.margin * size, 0) * np.sign(offset)
        if np.all(np.abs(shrunk) < _LEAST_OFFSET):
            return set()
        dx, dy = shrunk / np.linalg.norm(offset)
        holds = {
            "left of": dx < -self.least_share,
            "right of": dx > self.least_share,
            "above": dy < -self.least_share,
            "below": dy > self.least_share,
        }
        return {relation for relation, is_true in holds.items() if is_true}

    def depth(self, a: Box, b: Box) -> set[str]:
        """``in front of`` or ``behind``: on level ground what stands lower is nearer."""
        apart = abs(a[0] + a[2] - b[0] - b[2]) / 2
        if apart > self.most_apart * (a[2] - a[0] + b[2] - b[0]):
            return set()
        least = self.depth_margin * (a[3] - a[1] + b[3] - b[1])
        if abs(a[3] - b[3]) < least or a[3] == b[3]:
            return set()
        return {"in front of" if a[3] > b[3] else "behind"}
