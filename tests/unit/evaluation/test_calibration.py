import numpy as np
import pytest

from unimm.evaluation.calibration import Calibration, TrueFigure
from unimm.evaluation.matching import match_boxes, overlap
from unimm.judges.sightings import Detection, Sighting

LEFT, RIGHT = (0.0, 0.2, 0.4, 0.8), (0.6, 0.2, 1.0, 0.8)
WORDS = {"kind": "fox", "tint": "blue", "headwear": "none", "style": "3d"}


def seen(box, **changes) -> Detection:
    return Detection(**(WORDS | changes), box=box, score=0.9, probabilities=np.zeros(0))


def counted(*detections: Detection, background: str = "snow") -> Calibration:
    table = Calibration()
    truth = [TrueFigure(words=WORDS, box=LEFT), TrueFigure(words=WORDS, box=RIGHT)]
    table.add(truth, "snow", Sighting(background, list(detections)))
    return table


def test_boxes_are_paired_best_first_and_once() -> None:
    assert overlap(LEFT, LEFT) == pytest.approx(1.0)
    assert overlap(LEFT, RIGHT) == 0.0
    near = (0.05, 0.2, 0.45, 0.8)
    assert match_boxes([LEFT, RIGHT], [near, LEFT]) == [1, None]
    assert match_boxes([RIGHT, LEFT], [LEFT, RIGHT]) == [1, 0]


def test_a_scene_is_exact_only_if_everything_is() -> None:
    exact = {"scenes": 1, "counted": 1.0, "exact": 1.0}
    assert counted(seen(RIGHT), seen(LEFT)).scenes() == {"2": exact}
    assert counted(seen(LEFT), seen(RIGHT, tint="red")).scenes()["2"]["exact"] == 0
    extra = counted(seen(LEFT), seen(RIGHT), seen((0.4, 0.0, 0.6, 0.2)))
    assert extra.scenes()["2"]["exact"] == 0 and extra.scenes()["2"]["counted"] == 0
    assert extra.attributes()["not invented"] == pytest.approx(2 / 3, abs=1e-3)
    # A style is reported, but a scene may be exact without it.
    assert counted(seen(LEFT), seen(RIGHT, style="flat")).scenes()["2"]["exact"] == 1


def test_a_missed_figure_is_wrong_in_every_attribute() -> None:
    table = counted(seen(LEFT), background="night")
    assert table.attributes()["tint"] == 0.5
    assert table.attributes()["found"] == 0.5
    assert table.attributes()["background"] == 0.0
    assert table.worst() == [["background", "snow", "night", 1]]
