import pytest
import torch

from unimm.data.world.scene import Figure, Placed, Scene
from unimm.judges.labels import Labels, figure_indices, scene_indices, words_of


def scene_of(*figures: Figure) -> Scene:
    placed = tuple(Placed(figure=figure, x=0.5, y=0.9) for figure in figures)
    return Scene(background="dusk", variant=0, horizon=0.4, camera_height=1.0, placed=placed)


def test_words_survive_the_indices() -> None:
    figure = Figure(kind="fox", tint="blue", headwear="crown", style="flat", size="large")
    words = words_of(figure_indices(figure))
    assert words == {
        "kind": "fox",
        "tint": "blue",
        "headwear": "crown",
        "style": "flat",
    }


def test_scenes_are_padded_and_crowds_refused() -> None:
    fox, ball = Figure(kind="fox", tint="red"), Figure(kind="ball")
    attributes, background = scene_indices([scene_of(fox, ball), scene_of(ball)], 2)
    assert attributes.shape == (2, 2, 4)
    assert tuple(attributes[1, 0]) == figure_indices(ball) and not attributes[1, 1].any()
    assert background.tolist() == [4, 4]
    with pytest.raises(ValueError, match="2 figures"):
        scene_indices([scene_of(fox, ball)], 1)


def test_mirror_twice_is_the_same() -> None:
    boxes = torch.tensor([[[0.1, 0.2, 0.4, 0.9]]])
    zeros = torch.zeros(1, dtype=torch.long)
    labels = Labels(
        boxes=boxes, attributes=zeros.view(1, 1, 1), visibility=torch.ones(1, 1), background=zeros
    )
    once = labels.mirrored()
    torch.testing.assert_close(once.boxes, torch.tensor([[[0.6, 0.2, 0.9, 0.9]]]))
    torch.testing.assert_close(once.mirrored().boxes, boxes)
