"""Attacks: pictures optimised to fool the detector, shown to the parser too."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from unimm.data.world.figures import pick
from unimm.data.world.scene import CHARACTER_TINTS, SPECIES, Scene
from unimm.judges.adversarial import Claim, optimise_against
from unimm.judges.detector import Detector
from unimm.judges.parser import Parser


def sample_claims(rng: np.random.Generator, scenes: Sequence[Scene]) -> list[Claim]:
    """A character that each scene does not show, for the detector to see in it."""
    claims = []
    for scene in scenes:
        shown = {(placed.figure.kind, placed.figure.tint) for placed in scene.placed}
        look = (pick(rng, tuple(SPECIES)), pick(rng, CHARACTER_TINTS[1:]))
        while look in shown:
            look = (pick(rng, tuple(SPECIES)), pick(rng, CHARACTER_TINTS[1:]))
        claims.append(Claim(kind=look[0], tint=look[1]))
    return claims


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Pictures optimised against the detector, and what the judges make of them.

    Attributes:
        pixels: ``(B, 3, S, S)`` in [-1, 1].
        is_fooled: the detector says what it was made to say, picture by picture.
        is_refused: the parser cannot explain the picture.
        is_missed: the parser explains it, and says the same as the detector.
    """

    pixels: Tensor
    is_fooled: list[bool]
    is_refused: list[bool]
    is_missed: list[bool]

    def table(self) -> dict[str, int]:
        """Pictures, and of those that fooled the detector how many were caught, and how."""
        fooled = [k for k, was in enumerate(self.is_fooled) if was]
        return {
            "pictures": len(self.is_fooled),
            "detector fooled": len(fooled),
            "refused by the parser": sum(self.is_refused[k] for k in fooled),
            "explained as something else": sum(
                not self.is_refused[k] and not self.is_missed[k] for k in fooled
            ),
            "parser fooled too": sum(self.is_missed[k] for k in fooled),
        }


def attack(
    detector: Detector,
    parser: Parser,
    start: Tensor,
    claims: Sequence[Claim],
    *,
    radius: float | None = None,
    num_steps: int = 80,
) -> Attack:
    """Optimise pictures against the detector and show them to both judges.

    Args:
        detector: the judge that is attacked.
        parser: the judge that knows nothing of it.
        start: ``(B, 3, S, S)`` in [-1, 1].
        claims: one a picture, not true of it.
        radius: how far a pixel may move, of a range of 2; None for any.
        num_steps: of the optimisation.
    """
    with torch.enable_grad():
        pixels = optimise_against(detector, start, claims, radius=radius, num_steps=num_steps)
    parsed = parser.parse(pixels)
    seen = detector.describe(pixels)
    return Attack(
        pixels=pixels,
        is_fooled=[claim.is_made_by(x) for claim, x in zip(claims, seen, strict=True)],
        is_refused=[not x.is_explained for x in parsed],
        is_missed=[
            x.is_explained and claim.is_made_by(x.sighting)
            for claim, x in zip(claims, parsed, strict=True)
        ],
    )
