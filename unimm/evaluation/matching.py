"""Which detection is which figure of the truth."""

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (areas - shared)


def match_boxes(
    truth: Sequence[Box], found: Sequence[Box], *, min_overlap: float = 0.3
) -> list[int | None]:
    """Pair true boxes with found ones, the best overlapping pair first.

    Args:
        truth: boxes that should be there.
        found: boxes that a judge reports.
        min_overlap: intersection over union below which two boxes are not one figure.

    Returns:
        For each true box the number of its found box, or None where it was missed. No found box is
        used twice.
    """
    pairs = sorted(
        ((overlap(a, b), i, j) for i, a in enumerate(truth) for j, b in enumerate(found)),
        key=lambda pair: -pair[0],
    )
    partner: list[int | None] = [None] * len(truth)
    used: set[int] = set()
    for share, i, j in pairs:
        if share >= min_overlap and partner[i] is None and j not in used:
            partner[i] = j
            used.add(j)
    return partner
