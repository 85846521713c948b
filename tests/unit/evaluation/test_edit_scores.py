"""Edits are judged by what had to change and by what had to stay."""

from dataclasses import replace

import numpy as np
import pytest

from unimm.data.world.edits import EDIT_ACTIONS, Edit, sample_edit
from unimm.data.world.render import Renderer
from unimm.data.world.scene import Scene, sample_rng
from unimm.data.world.splits import Split
from unimm.evaluation.calibration import TrueFigure, true_figures
from unimm.evaluation.edit_scores import EditRunConfig, score_edit
from unimm.judges.sightings import Detection, Sighting


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer()


def figures_of(scene: Scene, renderer: Renderer) -> list[TrueFigure]:
    return true_figures([scene], renderer.render([scene], size=128))[0]


def perfect(scene: Scene, renderer: Renderer) -> Sighting:
    """What a perfect judge sees of a scene."""
    found = [
        Detection(box=x.box, score=0.9, probabilities=np.zeros(0), **x.words)
        for x in figures_of(scene, renderer)
    ]
    return Sighting(scene.background, found)


def edits(action: str, num: int = 6) -> list[Edit]:
    rng = [sample_rng(9, int(Split.VALIDATION), i) for i in range(num)]
    return [sample_edit(x, Split.VALIDATION, action=action) for x in rng]


@pytest.mark.parametrize("action", EDIT_ACTIONS)
def test_targets_are_right_and_given_pictures_are_only_kept(action, renderer):
    for edit in edits(action):
        truth = figures_of(edit.target, renderer)
        right = score_edit(edit, truth, perfect(edit.target, renderer))
        assert right == {"asked": True, "kept": True, "both": True}
        unchanged = score_edit(edit, truth, perfect(edit.source, renderer))
        assert not unchanged["asked"]
        assert unchanged["kept"] == (action not in ("remove", "add"))


def test_what_had_to_stay_may_neither_move_nor_change_nor_multiply(renderer):
    for edit in edits("recolour", 12):
        truth, sighting = figures_of(edit.target, renderer), perfect(edit.target, renderer)
        stays = [i for i, x in enumerate(edit.target.placed) if x in edit.source.placed]
        places = [score_edit(edit, truth, sighting._replace(background="dusk"))["kept"]]
        assert places == [edit.target.background == "dusk"]
        more = [*sighting.detections, replace(sighting.detections[0], box=(0, 0, 0.1, 0.1))]
        assert not score_edit(edit, truth, sighting._replace(detections=more))["kept"]
        for i in stays:
            for change in ({"box": (0.0, 0.0, 0.05, 0.05)}, {"tint": "other"}, {"kind": "other"}):
                found = list(sighting.detections)
                found[i] = replace(found[i], **change)
                score = score_edit(edit, truth, sighting._replace(detections=found))
                assert score["asked"] and not score["kept"] and not score["both"]


def test_configs_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"actions: unknown \['melt'\]"):
        EditRunConfig(actions=("melt",))
    with pytest.raises(ValueError, match="num_edits 1"):
        EditRunConfig(num_edits=1)
