"""How well the detector itself sees: its accuracy on renders, where the truth is known."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Generator, Tensor

from unimm.data.world.render import Render, Renderer
from unimm.data.world.scene import SPECIES, Scene
from unimm.evaluation.matching import Box, match_boxes
from unimm.judges.corruptions import Corruption, add_noise, blur, shrink
from unimm.judges.detector import Detector
from unimm.judges.labels import ATTRIBUTES
from unimm.judges.sightings import Detection, Sighting

MIN_VISIBILITY = 0.2  # the detector is not asked for figures that are hidden more
EXACT = ("kind", "tint", "headwear")  # what a scene must have right, figure by figure


@dataclass(frozen=True, kw_only=True)
class TrueFigure:
    """A figure that a picture shows.

    Attributes:
        words: attribute -> word.
        box: left, top, right, bottom as fractions of the picture.
        visibility: share of it that nothing hides.
    """

    words: dict[str, str]
    box: Box
    visibility: float = 1.0


@dataclass(frozen=True, kw_only=True)
class View:
    """How the detector gets to see a render.

    Attributes:
        size: side that the scene is drawn at, in pixels; None for the detector's own.
        apply: what happens to the pixels ``(B, 3, H, W)`` in [-1, 1] before it sees them, such as
            an image tokenizer's encoding and decoding; None for nothing.
    """

    size: int | None = None
    apply: Callable[[Tensor], Tensor] | None = None


@dataclass
class Calibration:
    """Counts over many pictures; ``add`` one at a time, then read the tables."""

    counts: Counter[str] = field(default_factory=Counter)
    by_number: dict[int, Counter[str]] = field(default_factory=dict)
    confusions: Counter[tuple[str, str, str]] = field(default_factory=Counter)

    def add(self, truth: Sequence[TrueFigure], background: str, sighting: Sighting) -> None:
        """Judge the judge on one picture."""
        shown = [figure for figure in truth if figure.visibility >= MIN_VISIBILITY]
        found = sighting.detections
        partner = match_boxes([figure.box for figure in shown], [x.box for x in found])
        self._background(background, sighting.background)
        rights = [
            self._figure(figure, found[j]) if j is not None else self._missed(figure)
            for figure, j in zip(shown, partner, strict=True)
        ]
        self.counts["figures found"] += sum(j is not None for j in partner)
        self.counts["figures"] += len(shown)
        self.counts["reported"] += len(found)
        row = self.by_number.setdefault(len(truth), Counter())
        row["scenes"] += 1
        row["exact"] += all(rights) and len(found) == len(shown)
        row["counted"] += len(found) == len(shown)

    def _background(self, truth: str, said: str) -> None:
        self.counts["background asked"] += 1
        self.counts["background right"] += truth == said
        if truth != said:
            self.confusions["background", truth, said] += 1

    def _figure(self, figure: TrueFigure, seen: Detection) -> bool:
        for name in self._asked(figure):
            said = getattr(seen, name)
            self.counts[f"{name} asked"] += 1
            self.counts[f"{name} right"] += said == figure.words[name]
            if said != figure.words[name]:
                self.confusions[name, figure.words[name], said] += 1
        return all(getattr(seen, name) == figure.words[name] for name in EXACT)

    def _missed(self, figure: TrueFigure) -> bool:
        """A missed figure is wrong in everything: an attribute nobody saw was not right."""
        for name in self._asked(figure):
            self.counts[f"{name} asked"] += 1
        return False

    @staticmethod
    def _asked(figure: TrueFigure) -> list[str]:
        is_character = figure.words["kind"] in SPECIES
        return [name for name in ATTRIBUTES if name != "headwear" or is_character]

    def attributes(self) -> dict[str, float]:
        """Accuracy of each attribute, of the background, and recall and precision of figures."""
        names = (*ATTRIBUTES, "background")
        table = {
            name: self.counts[f"{name} right"] / self.counts[f"{name} asked"]
            for name in names
            if self.counts[f"{name} asked"]
        }
        table["found"] = self.counts["figures found"] / max(1, self.counts["figures"])
        table["not invented"] = self.counts["figures found"] / max(1, self.counts["reported"])
        return {name: round(value, 4) for name, value in table.items()}

    def scenes(self) -> dict[str, dict[str, float]]:
        """Per number of figures: scenes, and the shares of them counted and seen exactly."""
        return {
            str(number): {
                "scenes": row["scenes"],
                "counted": round(row["counted"] / row["scenes"], 4),
                "exact": round(row["exact"] / row["scenes"], 4),
            }
            for number, row in sorted(self.by_number.items())
        }

    def worst(self, num: int = 10) -> list[list[str | int]]:
        """The commonest mistakes: attribute, truth, what was said, how often."""
        return [[*names, number] for names, number in self.confusions.most_common(num)]


def calibrate(
    detector: Detector,
    renderer: Renderer,
    scenes: Sequence[Scene],
    *,
    view: View | None = None,
    batch_size: int = 250,
) -> Calibration:
    """Render scenes, let the detector judge them, and count.

    Args:
        detector: on the renderer's device.
        renderer: draws the scenes.
        scenes: not among those it was trained on.
        view: how it sees them; clean at its own size by default.
        batch_size: pictures at once.
    """
    counts = Calibration()
    view = view or View()
    size = view.size or detector.config.image_size
    for start in range(0, len(scenes), batch_size):
        chunk = scenes[start : start + batch_size]
        render = renderer.render(chunk, size=size)
        pixels = render.rgb.float() / 127.5 - 1
        sightings = detector.describe(pixels if view.apply is None else view.apply(pixels))
        for scene, truth, sighting in zip(
            chunk, true_figures(chunk, render), sightings, strict=True
        ):
            counts.add(truth, scene.background, sighting)
    return counts


def true_figures(scenes: Sequence[Scene], render: Render) -> list[list[TrueFigure]]:
    """The figures of rendered scenes, as a judge should find them."""
    assert render.boxes is not None and render.visibility is not None
    boxes = (render.boxes / render.rgb.shape[-1]).tolist()
    visibility = render.visibility.tolist()
    return [
        [
            TrueFigure(
                words={name: getattr(placed.figure, name) for name in ATTRIBUTES},
                box=tuple(boxes[b][k]),
                visibility=visibility[b][k],
            )
            for k, placed in enumerate(scene.placed)
        ]
        for b, scene in enumerate(scenes)
    ]


def named_views(
    generator: Generator, reconstruct: Callable[[Tensor], Tensor] | None = None
) -> dict[str, View]:
    """The views that the detector is measured under, at strengths inside its training's range.

    Args:
        generator: of the noise, on the detector's device.
        reconstruct: an image tokenizer's, see ``ImageTokenizer.reconstruct``.
    """

    def by(corruption: Corruption, strength: float) -> View:
        def apply(pixels: Tensor) -> Tensor:
            return corruption(pixels, pixels.new_full((len(pixels),), strength), generator)

        return View(apply=apply)

    views = {"clean": View(), "drawn at 64 px": View(size=64), "blur 1": by(blur, 1.0)}
    views |= {"half the pixels": by(shrink, 2.0), "noise 0.16": by(add_noise, 0.16)}
    if reconstruct is not None:
        views["after the image tokenizer"] = View(apply=reconstruct)
    return views


def calibration_tables(
    tables: Mapping[tuple[str, str], Calibration],
) -> dict[str, dict[str, Any]]:
    """What the ledger keeps of calibrations.

    Args:
        tables: (art style, view) -> counts.

    Returns:
        ``atoms``: a row a style and view, a column an attribute. ``exact``: the share of scenes
        with everything right, a column a number of figures. ``scenes``: how many those are.
        ``worst``: the commonest mistakes.
    """
    scenes = {f"{style}, {view}": table.scenes() for (style, view), table in tables.items()}
    return {
        "atoms": {f"{style}, {view}": x.attributes() for (style, view), x in tables.items()},
        "exact": {
            name: {f"{number} figures": row["exact"] for number, row in rows.items()}
            for name, rows in scenes.items()
        },
        "scenes": {
            name: {f"{number} figures": row["scenes"] for number, row in rows.items()}
            for name, rows in scenes.items()
        },
        "worst": {f"{style}, {view}": table.worst() for (style, view), table in tables.items()},
    }
