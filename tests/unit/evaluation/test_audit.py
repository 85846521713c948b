"""Agreement of two judges, atom by atom."""

import numpy as np
import pytest

from unimm.data.world.render import Renderer
from unimm.evaluation.audit import audit, compare
from unimm.judges.folder import load_detector
from unimm.judges.parser import Parser, ParserConfig
from unimm.judges.sightings import Detection, Sighting
from unimm.pipeline import SHIPPED
from unimm.training.detector_scenes import sample_scenes

LEFT, RIGHT = (0.0, 0.2, 0.4, 0.8), (0.6, 0.2, 1.0, 0.8)
WORDS = {"kind": "fox", "tint": "blue", "headwear": "none", "style": "3d"}


def seen(box=LEFT, **changes) -> Detection:
    return Detection(**(WORDS | changes), box=box, score=0.9, probabilities=np.zeros(0))


def shares(first: Sighting, second: Sighting) -> tuple[int, int]:
    counts = compare(first, second)
    agreed, asked = (
        sum(n for name, n in counts.items() if name.endswith(what)) for what in ("agreed", "asked")
    )
    return agreed, asked


def test_atoms_are_counted_by_figure_and_attribute() -> None:
    one = Sighting("snow", [seen()])
    assert shares(one, one) == (5, 5)
    assert shares(one, Sighting("snow", [seen(tint="red")])) == (4, 5)
    assert shares(one, Sighting("night", [seen()])) == (4, 5)
    # An object has no headwear to agree on.
    ball = Sighting("snow", [seen(kind="ball")])
    assert shares(ball, ball) == (4, 4)


def test_a_figure_only_one_judge_sees_is_wrong_in_all_its_atoms_either_way() -> None:
    one, two = Sighting("snow", [seen()]), Sighting("snow", [seen(), seen(RIGHT)])
    assert shares(one, two) == shares(two, one) == (5, 9)


def test_the_shipped_detector_agrees_with_the_parser_on_clean_renders() -> None:
    scenes = sample_scenes(seed=12, start=0, num=16, styles=("3d",), shares=(1.0,))
    parser = Parser(ParserConfig(styles=("3d",)))
    counts = audit(load_detector(SHIPPED / "detector"), parser, Renderer(), scenes, size=128)
    table = counts.agreement()
    assert table["all atoms"] >= 0.95 and table["refused"] <= 0.07
    assert set(table) > {"kind", "tint", "background"}
    assert counts.parser.attributes()["found"] == pytest.approx(1.0, abs=0.05)
