"""GenEval's rules on boxes made by hand: each quirk of the official code has its case."""

import pytest

from unimm.evaluation.boxes import BoxRelations, Found, intersection_over_union
from unimm.evaluation.geneval import Clause, Metadata, Rules, evaluate, keep_found


def found(kind: str, score: float = 0.9, box=(0, 0, 10, 10), **looks: str) -> Found:
    return Found(kind=kind, box=box, score=score, looks=looks)


def metadata(tag: str, *include: dict, exclude: tuple[dict, ...] = ()) -> Metadata:
    entry = {"tag": tag, "prompt": "p", "include": list(include), "exclude": list(exclude)}
    return Metadata.from_json(entry)


def judge(data: Metadata, *objects: Found, rules: Rules | None = None):
    return evaluate(keep_found(objects, data.tag, rules=rules), data, rules=rules)


def test_extra_objects_are_punished_by_an_exclude_clause_only():
    two = {"class": "cup", "count": 2}
    cups = [found("cup")] * 3
    assert judge(metadata("two_object", two), *cups).correct
    assert not judge(metadata("two_object", two), *cups).is_exact
    counting = metadata("counting", two, exclude=({"class": "cup", "count": 3},))
    assert not judge(counting, *cups[:2]).correct  # .9 is not above the threshold of counting
    sure = [found("cup", 0.95)] * 3
    outcome = judge(counting, *sure)
    assert outcome.reason == "expected cup<3, found 3"
    assert judge(counting, *sure[:2]).is_exact


def test_thresholds_are_strict_and_counting_has_its_own():
    one = {"class": "cup", "count": 1}
    assert not judge(metadata("single_object", one), found("cup", 0.3)).correct
    assert judge(metadata("single_object", one), found("cup", 0.31)).correct
    assert not judge(metadata("counting", one), found("cup", 0.9)).correct
    assert judge(metadata("counting", one), found("cup", 0.91)).correct
    lenient = Rules(counting_threshold=0.3)
    assert judge(metadata("counting", one), found("cup", 0.4), rules=lenient).correct


def test_only_the_surest_are_looked_at():
    red = metadata("colors", {"class": "cup", "count": 1, "color": "red"})
    blue_first = (found("cup", 0.9, color="blue"), found("cup", 0.5, color="red"))
    outcome = judge(red, *blue_first)
    assert not outcome.correct
    assert outcome.reason == "expected red cup>=1, found 0 red; and 1 blue"
    assert judge(red, found("cup", 0.95, color="red"), *blue_first).correct


def test_all_of_a_count_must_have_the_colour():
    two = metadata("colors", {"class": "cup", "count": 2, "color": "red"})
    assert judge(two, found("cup", color="red"), found("cup", color="red")).correct
    assert not judge(two, found("cup", color="red"), found("cup", color="blue")).correct


def test_at_most_sixteen_objects_of_a_class_and_no_suppression_unless_asked():
    many = [found("cup", 0.4 + i / 100) for i in range(20)]
    kept = keep_found(many, "single_object")["cup"]
    assert len(kept) == 16 and kept[0].score == pytest.approx(0.59)
    assert len(keep_found(many, "single_object", rules=Rules(max_overlap=0.5))["cup"]) == 1


def test_a_wrong_colour_ends_the_check_of_its_clause_and_leaves_no_target():
    data = metadata(
        "position",
        {"class": "cup", "count": 1, "color": "red"},
        {"class": "ball", "count": 1, "position": ["left of", 0]},
    )
    blue = found("cup", box=(50, 0, 60, 10), color="blue")
    ball = found("ball", box=(0, 0, 10, 10))
    outcome = judge(data, blue, ball)
    assert outcome.reason.splitlines() == [
        "expected red cup>=1, found 0 red; and 1 blue",
        "no target for ball to be left of",
    ]
    assert judge(data, found("cup", box=(50, 0, 60, 10), color="red"), ball).correct


def test_every_pair_must_stand_as_said():
    data = metadata(
        "position",
        {"class": "cup", "count": 1},
        {"class": "ball", "count": 2, "position": ["left of", 0]},
    )
    cup = found("cup", box=(50, 0, 60, 10))
    left, right = found("ball", box=(0, 0, 10, 10)), found("ball", box=(90, 0, 100, 10))
    assert judge(data, cup, left, left).correct
    assert "right of" in judge(data, cup, left, right).reason


def test_the_margin_shrinks_the_offset_but_not_the_distance():
    sides = BoxRelations().sides
    # Widths' sum 20, so the margin is 2 pixels; middles 4 apart give 2 / 4 = .5: not beyond it.
    assert sides((0, 0, 10, 10), (4, 0, 14, 10)) == set()
    assert sides((0, 0, 10, 10), (4.1, 0, 14.1, 10)) == {"left of"}
    assert sides((0, 0, 10, 10), (0, 4.1, 10, 14.1)) == {"above"}
    # Far away on the diagonal: .7 of the distance each way, so two relations hold at once.
    assert sides((100, 100, 110, 110), (0, 0, 10, 10)) == {"right of", "below"}
    assert sides((0, 0, 10, 10), (0, 0, 10, 10)) == set()


def test_depth_order_needs_a_lower_foot_and_little_sideways():
    depth = BoxRelations().depth
    near, far = (10, 20, 50, 60), (20, 10, 60, 50)
    assert depth(near, far) == {"in front of"} and depth(far, near) == {"behind"}
    assert depth(near, (20, 20, 60, 60)) == set()
    assert depth(near, (80, 10, 120, 50)) == set()


def test_overlap_counts_the_last_pixel():
    assert intersection_over_union((0, 0, 9, 9), (5, 0, 14, 9)) == pytest.approx(50 / 150)
    assert intersection_over_union((0, 0, 9, 9), (20, 20, 29, 29)) == 0


def test_clauses_survive_a_round_trip():
    data = metadata(
        "color_attr",
        {"class": "cup", "count": 1, "color": "red"},
        {"class": "fox", "count": 2, "headwear": "crown", "position": ["behind", 0]},
        exclude=({"class": "cup", "count": 2},),
    )
    assert Metadata.from_json(data.to_json()) == data
    assert data.include[1] == Clause(
        kind="fox", count=2, looks={"headwear": "crown"}, position=("behind", 0)
    )


@pytest.mark.parametrize(
    ("clause", "message"),
    [
        ({"class": "cup", "count": 1, "colour": "red"}, "unknown keys \\['colour'\\]"),
        ({"class": "cup", "count": 0}, "whole number from 1"),
        ({"class": "cup"}, "whole number from 1"),
        ({"class": "cup", "count": 1, "position": ["left of", 0]}, "must come before it"),
    ],
)
def test_bad_clauses_are_refused(clause, message):
    with pytest.raises(ValueError, match=message):
        metadata("colors", clause)
