"""Pictures optimised against the detector: pixels that make it say what is not there.

Whoever optimises a generator for a learned judge's praise finds such pictures sooner or later. They
are made here on purpose, to see whether another judge notices.

Shapes: B pictures, S side of a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from unimm.data.world.scene import SPECIES
from unimm.judges.detector import Detector, split_attributes
from unimm.judges.labels import ATTRIBUTES, VOCABULARY
from unimm.judges.sightings import Sighting


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the detector shall be made to say: a kind in a tint, in a box of fractions."""

    kind: str
    tint: str
    box: tuple[float, float, float, float] = (0.3, 0.4, 0.7, 0.8)

    def is_made_by(self, sighting: Sighting) -> bool:
        """Whether a judge says that the picture shows such a figure, wherever it is."""
        return any((x.kind, x.tint) == (self.kind, self.tint) for x in sighting.detections)


def optimise_against(
    detector: Detector,
    pixels: Tensor,
    claims: Sequence[Claim],
    *,
    num_steps: int = 80,
    step_size: float = 0.03,
    radius: float | None = None,
) -> Tensor:
    """Change pictures by gradient ascent until the detector makes given claims of them.

    Args:
        detector: the judge to be fooled.
        pixels: ``(B, 3, S, S)`` in [-1, 1] to begin with, S the detector's own size.
        claims: one a picture.
        num_steps: of Adam.
        step_size: of a step, of a range of 2.
        radius: how far a pixel may move, of a range of 2; None for any.

    Returns:
        ``(B, 3, S, S)`` in [-1, 1], rounded to 8 bits as a saved picture is.

    Raises:
        ValueError: pictures of another size than the detector's, or not one claim a picture.
    """
    size = detector.config.image_size
    if pixels.shape[1:] != (3, size, size) or len(claims) != len(pixels):
        raise ValueError(
            f"{len(claims)} claims on pixels {tuple(pixels.shape)}; give one a picture, and "
            f"pictures of {size} pixels"
        )
    start, device = pixels.detach(), pixels.device
    changed = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([changed], lr=step_size)
    boxes = torch.tensor([claim.box for claim in claims], device=device)
    for _ in range(num_steps):
        loss = -_confidence(detector, changed, claims, boxes).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            if radius is not None:
                changed.copy_(start + (changed - start).clamp(-radius, radius))
            changed.clamp_(-1, 1)
    levels = ((changed.detach() + 1) * 127.5).round()
    return levels / 127.5 - 1


def _confidence(
    detector: Detector, pixels: Tensor, claims: Sequence[Claim], boxes: Tensor
) -> Tensor:
    """Log-probability of each claim: a figure stands there, of this size, kind and tint; (B,)."""
    maps = detector(pixels)
    rows = torch.arange(len(pixels), device=pixels.device)
    group = torch.tensor([int(claim.kind not in SPECIES) for claim in claims], device=pixels.device)
    height, width = maps.heat.shape[-2:]
    scale = boxes.new_tensor([width, height])
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 * scale
    cell = middle.long()
    heat = maps.heat[rows, group, cell[:, 1], cell[:, 0]]
    box = maps.box.unflatten(1, (-1, 4))[rows, group, :, cell[:, 1], cell[:, 0]]  # (B, 4)
    aim = torch.cat([middle - cell, ((boxes[:, 2:] - boxes[:, :2]) * scale).log()], 1)
    total = logsigmoid(heat) - (box - aim).abs().sum(1)
    words = split_attributes(
        detector.read_attributes(maps.features, boxes[:, None], group[:, None])
    )
    for name in ("kind", "tint"):
        logits = words[ATTRIBUTES.index(name)][:, 0].log_softmax(-1)  # (B, words)
        aimed = [VOCABULARY[name].index(getattr(claim, name)) for claim in claims]
        total = total + logits[rows, torch.tensor(aimed, device=pixels.device)]
    return total
