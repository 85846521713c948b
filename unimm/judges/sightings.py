"""What a judge says of a picture: its figures and its background.

Legend: ``V`` words of all attributes together.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from unimm.data.world.scene import SPECIES
from unimm.judges.labels import ATTRIBUTES, VOCABULARY


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One figure that was found.

    Attributes:
        kind: species or object class.
        tint: ``natural`` or a colour.
        headwear: what it wears, or ``none``.
        style: the art it is drawn in.
        box: left, top, right, bottom as fractions of the picture.
        score: height of its peak, 0 to 1.
        probabilities: ``(V,)`` of every word of every attribute, in the order of ``VOCABULARY``.
    """

    kind: str
    tint: str
    headwear: str
    style: str
    box: tuple[float, float, float, float]
    score: float
    probabilities: np.ndarray = field(repr=False, compare=False)

    @property
    def is_character(self) -> bool:
        """Whether it is a face."""
        return self.kind in SPECIES

    @property
    def area(self) -> float:
        """Share of the picture that its box covers."""
        left, top, right, bottom = self.box
        return max(0.0, right - left) * max(0.0, bottom - top)

    def probability(self, attribute: str, word: str) -> float:
        """How sure the detector is that an attribute is this word.

        Raises:
            ValueError: there is no such attribute or word.
        """
        if attribute not in VOCABULARY or word not in VOCABULARY[attribute]:
            raise ValueError(f"no {attribute!r} {word!r}; attributes: {ATTRIBUTES}")
        start = sum(len(VOCABULARY[name]) for name in ATTRIBUTES[: ATTRIBUTES.index(attribute)])
        return float(self.probabilities[start + VOCABULARY[attribute].index(word)])


class Sighting(NamedTuple):
    """All that the detector says of a picture."""

    background: str
    detections: list[Detection]
