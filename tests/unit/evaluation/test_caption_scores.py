import json

import pytest
from pipelines import tiny_pipeline

from unimm.data.world.scene import Figure, Placed, Scene
from unimm.evaluation.caption_run import (
    CEILING,
    OTHER,
    CaptionRunConfig,
    caption_scenes,
    score_captions,
)
from unimm.evaluation.caption_scores import full_description, score_caption, summarise_captions


def scene(*figures: Figure) -> Scene:
    placed = tuple(
        Placed(figure=figure, x=0.2 + 0.6 * i / max(1, len(figures) - 1), y=0.9)
        for i, figure in enumerate(figures)
    )
    return Scene(
        background="snow", variant=0, horizon=0.4, camera_height=1.8, placed=placed
    )  # sizes of about .25: figures stand side by side


FOX_AND_BALL = scene(
    Figure(kind="fox", tint="blue", headwear="crown"), Figure(kind="ball", tint="red")
)


def test_a_full_and_true_caption():
    said = (
        "There is a blue fox with a crown and a red ball in the snow. The fox is left of the ball."
    )
    score = score_caption(said, FOX_AND_BALL)
    assert score.is_right and not score.invented
    assert sum(score.wanted.values()) == len(full_description(FOX_AND_BALL)) == 6
    assert sum(score.stated.values()) == 7  # the relation is said, but need not be
    mirrored = score_caption(said.replace("fox is left of the ball", "ball is right of the fox"),
                             FOX_AND_BALL)  # fmt: skip
    assert mirrored.is_right


def test_each_kind_of_mistake_is_counted_where_it_belongs():
    wrong_colour = score_caption("a pink fox and a red ball in the snow", FOX_AND_BALL)
    assert wrong_colour.stated["colour"] - wrong_colour.true["colour"] == 1
    assert wrong_colour.invented == ()
    assert wrong_colour.wanted["headwear"] - wrong_colour.said["headwear"] == 1

    invented = score_caption("a blue fox and a cup in the snow", FOX_AND_BALL)
    assert invented.invented == ("cup",)
    assert (invented.true["exists"], invented.said["exists"]) == (1, 1)

    wrong_side = score_caption("a fox to the right of a ball", FOX_AND_BALL)
    assert wrong_side.stated["relation"] == 1 and wrong_side.true["relation"] == 0

    three = scene(*[Figure(kind="cup")] * 3)
    assert score_caption("two cups in the snow", three).true["count"] == 0
    assert score_caption("three cups in the snow", three).is_right


def test_rates_by_hand():
    captions = [
        "a blue fox with a crown and a red ball in the snow",  # 6 of 6 true, 6 of 6 said
        "a blue fox and a cup",  # 2 of 3 true, 2 of 6 said
        "What a day!",  # silent
    ]
    table = summarise_captions([score_caption(x, FOX_AND_BALL) for x in captions])
    assert table["precision"]["value"] == pytest.approx(8 / 9, abs=1e-4)
    assert table["recall"]["value"] == pytest.approx(8 / 18, abs=1e-4)
    assert table["things invented"]["value"] == 0.25
    assert table["captions that invent"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert table["all right"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert (table["captions"], table["silent"]) == (3, 1)
    assert table["kinds"]["colour"] == {
        "precision": 1.0, "precision of": 3, "recall": 0.5, "recall of": 6
    }  # fmt: skip


def test_silence_has_no_precision_and_no_recall():
    table = summarise_captions([score_caption("Hello.", FOX_AND_BALL)] * 2)
    assert table["precision"] is None and table["recall"]["value"] == 0
    with pytest.raises(ValueError, match="no captions"):
        summarise_captions([])


@pytest.mark.parametrize("split", ["seen", "heldout"])
def test_the_worlds_own_captions_are_perfect_and_those_of_other_pictures_are_not(split):
    drawn = caption_scenes(split, num=150, seed=1)
    own = summarise_captions([score_caption(x.caption, x.scene) for x in drawn])
    assert own["precision"]["value"] == own["recall"]["value"] == own["all right"]["value"] == 1
    other = [score_caption(drawn[i - 1].caption, x.scene) for i, x in enumerate(drawn)]
    table = summarise_captions(other)
    assert table["precision"]["value"] < 0.2 and table["captions that invent"]["value"] > 0.9


def test_a_model_is_scored_with_its_baselines(tmp_path):
    config = CaptionRunConfig(output=str(tmp_path), num_pictures=3, batch_size=2, max_cards=2)
    summary = score_captions(tiny_pipeline(), config, tell=lambda _: None)
    rows = summary["splits"]["heldout"]
    assert rows[CEILING]["all right"]["value"] == 1 and OTHER in rows
    assert rows["captions"] == 3 and rows["recall"]["value"] < 0.2
    lines = [json.loads(x) for x in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert len(lines) == 6 and {x["split"] for x in lines} == {"seen", "heldout"}
    assert all(x["caption"].startswith("The picture shows") for x in lines)
    assert (tmp_path / "report.html").read_text().count("<img") == 4
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="unknown \\['test'\\]"):
        CaptionRunConfig(splits=("test",))
    with pytest.raises(ValueError, match="another picture's caption"):
        CaptionRunConfig(num_pictures=1)
