"""Score edits: does the new picture have the change that was asked for, and keep the rest?

A given picture, an instruction (``Make the fox red.``), one picture to draw. The truth is a pair of
scenes, so the judge can be asked for exactly what must differ and what must not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from unimm.data.world.edits import EDIT_ACTIONS, Edit, sample_edit
from unimm.data.world.render import Renderer
from unimm.data.world.scene import Figure, sample_rng
from unimm.evaluation.calibration import TrueFigure, true_figures
from unimm.evaluation.intervals import Rate, Tally
from unimm.evaluation.matching import match_boxes
from unimm.evaluation.nearest_scenes import training_scenes
from unimm.evaluation.picture_judge import SightingJudge
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, NEAREST, RANDOM
from unimm.evaluation.pictures import render_pictures
from unimm.evaluation.story_references import NearestPages
from unimm.evaluation.worldeval import SPLITS
from unimm.generation.generate import generate
from unimm.judges.sightings import Detection, Sighting
from unimm.pipeline import Pipeline

UNCHANGED = "given picture, unchanged"
BLIND = "without the picture"
SCORES: tuple[str, ...] = ("asked", "kept", "both")


@dataclass(frozen=True, kw_only=True)
class EditRunConfig:
    """One run of ``eval/score_edits.py``.

    Attributes:
        model: shipped name, folder or Hub id.
        objective: of the model that draws; empty is its first.
        detector: folder of the judge.
        ledger: folder of the ledger; empty writes none.
        splits: ``seen`` and ``heldout``.
        actions: kinds of edits.
        num_edits: of each kind and split; 2 or more.
        num_training_documents: among whose pictures the nearest neighbour is looked for.
        batch_size: pictures drawn at once.
        seed: of the edits and of the drawing.
        device: "cpu" or "cuda"; empty takes the GPU where there is one.
    """

    model: str = "storyworld"
    objective: str = ""
    detector: str = "unimm/assets/models/detector"
    ledger: str = ""
    splits: tuple[str, ...] = tuple(SPLITS)
    actions: tuple[str, ...] = EDIT_ACTIONS
    num_edits: int = 64
    num_training_documents: int = 8_000
    batch_size: int = 128
    seed: int = 6161
    device: str = ""

    def __post_init__(self) -> None:
        known = {"splits": tuple(SPLITS), "actions": EDIT_ACTIONS}
        for name, words in known.items():
            unknown = [x for x in getattr(self, name) if x not in words]
            if unknown or not getattr(self, name):
                raise ValueError(f"{name}: unknown {unknown}; choose from {words}")
        if self.num_edits < 2 or self.batch_size < 1:
            raise ValueError(
                f"num_edits {self.num_edits}, batch_size {self.batch_size}: a baseline takes "
                "another edit's picture, so score 2 or more, 1 or more at once"
            )


def score_edit(edit: Edit, truth: Sequence[TrueFigure], sighting: Sighting) -> dict[str, bool]:
    """Judge one picture.

    Args:
        edit: what was asked.
        truth: the figures of its target, in the scene's order, with their boxes.
        sighting: what the picture shows.

    Returns:
        ``asked``: the new look or thing is there and the old one gone, or the place is the new one.
        ``kept``: every other figure is where it was and looks as it did, nothing was added, and
        the place is the same unless it was to change. ``both``.
    """
    source, target = edit.source.placed, edit.target.placed
    found = sighting.detections
    is_moved = edit.source.background != edit.target.background
    asked = not is_moved or sighting.background == edit.target.background
    for placed in target:
        if placed not in source:
            asked = asked and any(_is_look(x, placed.figure) for x in found)
    for placed in source:
        if placed not in target:
            left = sum(_is_look(x, placed.figure) for x in found)
            asked = asked and left <= sum(x.figure == placed.figure for x in target)
    stays = [i for i, placed in enumerate(target) if placed in source]
    partners = match_boxes([truth[i].box for i in stays], [x.box for x in found])
    kept = len(found) == len(target)
    kept = kept and (is_moved or sighting.background == edit.target.background)
    for i, partner in zip(stays, partners, strict=True):
        kept = kept and partner is not None and _is_look(found[partner], target[i].figure)
    return {"asked": asked, "kept": kept, "both": asked and kept}


def _is_look(x: Detection, figure: Figure) -> bool:
    look = (figure.kind, figure.tint, figure.headwear if figure.is_character else x.headwear)
    return (x.kind, x.tint, x.headwear) == look


def draw_edits(
    pipeline: Pipeline, prompts: Sequence[list[Any]], *, seed: int, batch_size: int
) -> list[Image.Image]:
    """The picture that the model draws behind each prompt; prompt ``i`` has ``seed + i``."""
    drawn: list[Image.Image] = []
    for start in range(0, len(prompts), batch_size):
        chunk = list(prompts[start : start + batch_size])
        seeds = [seed + start + i for i in range(len(chunk))]
        stories = generate(pipeline, chunk, num_images=1, max_text_tokens=0, seed=seeds)
        drawn += [story.images[-1] for story in stories]
    return drawn


def score_edits(
    pipeline: Pipeline,
    judge: SightingJudge,
    config: EditRunConfig,
    *,
    tell: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """Draw all edits and judge them beside ceilings and baselines.

    Returns:
        A row for each split and kind of edit, and for ``all`` of a split: ``asked``, ``kept`` and
        ``both`` with intervals, and ``both`` of every reference.
    """
    renderer = Renderer(device=pipeline.device)
    pool = NearestPages(training_scenes(config.num_training_documents))
    table: dict[str, dict[str, Any]] = {}
    for split in config.splits:
        edits = [
            sample_edit(sample_rng(config.seed, int(SPLITS[split]), i), SPLITS[split], action=x)
            for i, x in enumerate(x for x in config.actions for _ in range(config.num_edits))
        ]
        size = pipeline.image_size

        def render(scenes: Sequence[Any], view: Any = None, size: int = size) -> list[Image.Image]:
            return render_pictures(scenes, renderer, size=size, view=view)

        given, targets = render([x.source for x in edits]), [x.target for x in edits]
        options = {"seed": config.seed, "batch_size": config.batch_size}
        asked = [[picture, x.instruction] for picture, x in zip(given, edits, strict=True)]
        drawn = draw_edits(pipeline, asked, **options)
        pictures = {
            "drawn": drawn,
            CEILING: render(targets),
            CEILING_AFTER: render(targets, pipeline.reconstruct),
            UNCHANGED: given,
            RANDOM: drawn[1:] + drawn[:1],
            NEAREST: render([pool.nearest(scene) for scene in targets]),
            BLIND: draw_edits(pipeline, [[x.instruction] for x in edits], **options),
        }
        truth = true_figures(targets, renderer.render(targets, size=size))
        scored = {name: _scores(edits, truth, judge.look(x)) for name, x in pictures.items()}
        for action in (*config.actions, "all"):
            rows = [i for i, x in enumerate(edits) if action in (x.action, "all")]
            key = f"{split}, {action}"
            table[key] = _row({name: [x[i] for i in rows] for name, x in scored.items()})
            tell(f"{key}: {table[key]}")
    return table


def _scores(
    edits: Sequence[Edit], truth: Sequence[Sequence[TrueFigure]], seen: Sequence[Sighting]
) -> list[dict[str, bool]]:
    return [score_edit(*x) for x in zip(edits, truth, seen, strict=True)]


def _row(scored: Mapping[str, Sequence[Mapping[str, bool]]]) -> dict[str, Any]:
    own = scored["drawn"]
    rates = {name: _rate(own, name) for name in SCORES}
    row = {name: f"{x.value:.2f} [{x.low:.2f}, {x.high:.2f}]" for name, x in rates.items()}
    references = {k: round(_rate(x, "both").value, 3) for k, x in scored.items() if k != "drawn"}
    return row | references | {"edits": len(own)}


def _rate(scores: Sequence[Mapping[str, bool]], name: str) -> Rate:
    tally = Tally()
    for unit, score in enumerate(scores):
        tally.add(unit, score[name])
    return tally.rate()
