"""The parser finds what was drawn, and refuses what nobody drew."""

from functools import cache

import pytest
import torch
from torch import Tensor

from unimm.data.world.backdrops import horizon_of
from unimm.data.world.render import Renderer
from unimm.data.world.scene import Figure, Placed, Scene, sample_rng
from unimm.judges.parser import Parser, ParserConfig, Parsing
from unimm.judges.sightings import Detection
from unimm.training.detector_scenes import sample_scenes


@cache
def parser() -> Parser:
    return Parser(ParserConfig(styles=("3d",)))


def scene(*placed: Placed, background: str = "meadow", variant: int = 3) -> Scene:
    return Scene(
        background=background,
        variant=variant,
        horizon=horizon_of(background, variant),
        camera_height=0.95,
        placed=placed,
    )


def drawn(one: Scene, size: int) -> Tensor:
    return Renderer().render([one], size=size, only_rgb=True).rgb.float() / 127.5 - 1


def parsed(one: Scene, size: int = 128) -> Parsing:
    return parser().parse(drawn(one, size))[0]


def looks(parsing: Parsing) -> set[tuple[str, str, str]]:
    return {(x.kind, x.tint, x.headwear) for x in parsing.sighting.detections}


FOX = Figure(kind="fox", tint="blue", headwear="crown")
BALL = Figure(kind="ball", tint="red")


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("background", ["meadow", "night", "snow"])
def test_two_figures_are_redrawn_to_the_pixel(size: int, background: str) -> None:
    placed = (
        Placed(figure=FOX, x=0.3, y=0.86),
        Placed(figure=BALL, x=0.74, y=0.9, is_flipped=True),
    )
    one = scene(*placed, background=background)
    parsing = parsed(one, size)
    assert parsing.is_explained and parsing.residual < 0.005
    assert parsing.sighting.background == background
    assert looks(parsing) == {("fox", "blue", "crown"), ("ball", "red", "none")}
    truth = Renderer().render([one], size=size).boxes
    assert truth is not None
    found: dict[str, Detection] = {x.kind: x for x in parsing.sighting.detections}
    for k, kind in enumerate(("fox", "ball")):
        box = torch.tensor(found[kind].box) * size
        torch.testing.assert_close(box, truth[0, k], atol=0.5, rtol=0)
    assert found["fox"].probability("tint", "blue") == 1
    assert found["fox"].probability("tint", "red") == 0


def test_a_figure_half_hidden_by_one_of_its_own_colour_is_found() -> None:
    rear = Figure(kind="bear", tint="red")
    placed = (Placed(figure=rear, x=0.45, y=0.82), Placed(figure=BALL, x=0.66, y=0.9))
    parsing = parsed(scene(*placed))
    assert parsing.is_explained
    assert looks(parsing) == {("bear", "red", "none"), ("ball", "red", "none")}


def test_an_empty_backdrop_shows_nothing() -> None:
    parsing = parsed(scene(background="beach", variant=11))
    assert parsing == parsing._replace(residual=0.0, is_explained=True)
    assert parsing.sighting.background == "beach" and not parsing.sighting.detections


def test_noise_is_refused() -> None:
    noise = torch.from_numpy(sample_rng(0, 0, 0).uniform(-1, 1, (1, 3, 64, 64))).float()
    parsing = parser().parse(noise)[0]
    assert not parsing.is_explained and parsing.residual > 0.5


@pytest.mark.long
def test_what_nobody_drew_is_refused() -> None:
    picture = drawn(scene(Placed(figure=FOX, x=0.3, y=0.86)), 128)
    picture[:, :, 70:100, 80:110] = torch.tensor([0.9, -0.9, 0.9]).view(3, 1, 1)
    parsing = parser().parse(picture)[0]
    assert not parsing.is_explained
    # The square is a twentieth of the picture, and no sprite looks like it.
    assert parsing.residual > 0.02
    assert ("fox", "blue", "crown") in looks(parsing)


def test_answers_do_not_depend_on_the_batch() -> None:
    scenes = [scene(Placed(figure=f, x=0.5, y=0.88)) for f in (FOX, BALL)]
    pixels = torch.cat([drawn(one, 64) for one in scenes])
    together = parser().parse(pixels)
    apart = [parser().parse(part)[0] for part in pixels.split(1)]
    assert [looks(x) for x in together] == [looks(x) for x in apart]
    assert [x.residual for x in together] == pytest.approx([x.residual for x in apart])


def test_bad_pixels_are_refused() -> None:
    for pixels, message in (
        (torch.zeros(1, 3, 100, 100), "S of \\(64, 128\\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "uint8"),
        (torch.full((1, 3, 64, 64), 255.0), "reach 255"),
    ):
        with pytest.raises(ValueError, match=message):
            parser().parse(pixels)


@pytest.mark.long
def test_a_picture_that_is_not_explained_is_looked_at_more_thoroughly() -> None:
    scenes = sample_scenes(seed=1000040, start=0, num=16, styles=("flat",), shares=(1.0,))
    pixels = drawn(scenes[15], 64)
    hasty, thorough = (
        Parser(ParserConfig(styles=("flat",), thorough=number)).parse(pixels)[0]
        for number in (1, 4)
    )
    assert not hasty.is_explained
    assert thorough.is_explained and thorough.residual < 0.02
