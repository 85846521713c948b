"""The audit: how often the detector and the parser say the same of a picture.

An atom is one attribute of one figure, or the background. A figure that only one judge sees is a
disagreement in all of its atoms.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from unimm.data.world.render import Renderer
from unimm.data.world.scene import SPECIES, Scene
from unimm.evaluation.calibration import Calibration, true_figures
from unimm.evaluation.matching import match_boxes
from unimm.judges.detector import Detector
from unimm.judges.labels import ATTRIBUTES
from unimm.judges.parser import Parser
from unimm.judges.sightings import Detection, Sighting


@dataclass
class Audit:
    """Counts over many pictures; ``add`` one at a time, then read the tables.

    Attributes:
        parser: how the parser does against the truth.
        detector: how the detector does on the same pictures.
        atoms: asked and agreed, by attribute.
        pictures: all, and those that the parser refused.
    """

    parser: Calibration = field(default_factory=Calibration)
    detector: Calibration = field(default_factory=Calibration)
    atoms: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)

    def agreement(self) -> dict[str, float]:
        """Share of atoms that both judges say alike, by attribute and of all together."""
        names = [*ATTRIBUTES, "background"]
        table = {name: self.atoms[f"{name} agreed"] / self.atoms[f"{name} asked"] for name in names}
        agreed, asked = (
            sum(self.atoms[f"{name} {what}"] for name in names) for what in ("agreed", "asked")
        )
        table |= {"all atoms": agreed / asked}
        table["refused"] = self.pictures["refused"] / self.pictures["all"]
        return {name: round(value, 4) for name, value in table.items()}


def compare(first: Sighting, second: Sighting) -> Counter[str]:
    """Atoms asked and agreed of one picture, by attribute."""
    counts: Counter[str] = Counter()
    counts["background asked"] += 1
    counts["background agreed"] += first.background == second.background
    ours, theirs = first.detections, second.detections
    partner = match_boxes([x.box for x in ours], [x.box for x in theirs])
    for one, j in zip(ours, partner, strict=True):
        _count(counts, one, None if j is None else theirs[j])
    for j, one in enumerate(theirs):
        if j not in partner:
            _count(counts, one, None)
    return counts


def _count(counts: Counter[str], one: Detection, other: Detection | None) -> None:
    faces = one.kind in SPECIES or (other is not None and other.kind in SPECIES)
    for name in ATTRIBUTES:
        if name == "headwear" and not faces:
            continue
        counts[f"{name} asked"] += 1
        counts[f"{name} agreed"] += other is not None and getattr(one, name) == getattr(other, name)


def audit(
    detector: Detector,
    parser: Parser,
    renderer: Renderer,
    scenes: Sequence[Scene],
    *,
    size: int,
    batch_size: int = 128,
) -> Audit:
    """Render scenes, let both judges see them, and compare.

    Args:
        detector: on the renderer's device.
        parser: on the renderer's device.
        renderer: draws the scenes.
        scenes: not among those that the detector was trained on.
        size: side of the pictures.
        batch_size: pictures at once.
    """
    counts = Audit()
    for start in range(0, len(scenes), batch_size):
        chunk = scenes[start : start + batch_size]
        render = renderer.render(chunk, size=size)
        pixels = render.rgb.float() / 127.5 - 1
        seen, parsed = detector.describe(pixels), parser.parse(pixels, batch_size=batch_size)
        for b, truth in enumerate(true_figures(chunk, render)):
            counts.detector.add(truth, chunk[b].background, seen[b])
            counts.parser.add(truth, chunk[b].background, parsed[b].sighting)
            counts.atoms += compare(seen[b], parsed[b].sighting)
            counts.pictures["all"] += 1
            counts.pictures["refused"] += not parsed[b].is_explained
    return counts
