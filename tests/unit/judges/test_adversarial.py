"""Pictures optimised against the shipped detector are caught by the parser."""

from functools import cache

import pytest
import torch

from unimm.data.world.render import Renderer
from unimm.data.world.scene import sample_rng
from unimm.evaluation.attack import attack, sample_claims
from unimm.judges.adversarial import Claim, optimise_against
from unimm.judges.detector import Detector
from unimm.judges.folder import load_detector
from unimm.judges.parser import Parser, ParserConfig
from unimm.pipeline import SHIPPED
from unimm.training.detector_scenes import sample_scenes

CLAIMS = [Claim(kind="fox", tint="blue"), Claim(kind="apple", tint="purple")]


@cache
def judges() -> tuple[Detector, Parser]:
    return load_detector(SHIPPED / "detector"), Parser(ParserConfig(styles=("3d",)))


@cache
def scenes():
    return sample_scenes(seed=3, start=1, num=2, styles=("3d",), shares=(1.0,))


def renders() -> torch.Tensor:
    return Renderer().render(scenes(), size=128, only_rgb=True).rgb.float() / 127.5 - 1


@pytest.mark.parametrize("begin", ["render", pytest.param("noise", marks=pytest.mark.long)])
def test_the_parser_says_no_where_the_detector_was_made_to_say_yes(begin: str) -> None:
    start = renders()
    if begin == "noise":
        noise = sample_rng(0, 0, 0).uniform(-1, 1, tuple(start.shape))
        start = torch.from_numpy(noise).float()
    result = attack(*judges(), start, CLAIMS, num_steps=60)
    table = result.table()
    # A figure that stands where another is to be seen resists longer than noise does.
    assert table["detector fooled"] >= (2 if begin == "noise" else 1)
    assert result.is_missed == [False, False]
    caught = table["refused by the parser"] + table["explained as something else"]
    assert caught == table["detector fooled"]


def test_the_parser_believes_the_render_that_an_attack_began_with() -> None:
    parsed = judges()[1].parse(renders())
    for parsing, scene in zip(parsed, scenes(), strict=True):
        assert parsing.is_explained
        said = {(x.kind, x.tint) for x in parsing.sighting.detections}
        assert said == {(p.figure.kind, p.figure.tint) for p in scene.placed}


def test_a_radius_holds_and_pixels_are_eight_bit() -> None:
    start, radius = renders(), 8 / 127.5
    changed = optimise_against(judges()[0], start, CLAIMS, num_steps=3, radius=radius)
    assert 0 < float((changed - start).abs().max()) <= radius + 1e-5
    levels = (changed + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="one a picture"):
        optimise_against(judges()[0], start, CLAIMS[:1])


def test_claims_are_not_true_of_their_scenes() -> None:
    many = sample_scenes(seed=4, start=0, num=300, styles=("3d",), shares=(1.0,))
    claims = sample_claims(sample_rng(0, 0, 1), many)
    assert len({claim.kind for claim in claims}) > 10
    for claim, scene in zip(claims, many, strict=True):
        shown = {(p.figure.kind, p.figure.tint) for p in scene.placed}
        assert (claim.kind, claim.tint) not in shown
