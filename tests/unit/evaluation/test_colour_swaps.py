from dataclasses import replace
from typing import Any

import pytest
import torch

from unimm.data.world.render import Renderer
from unimm.evaluation.colour_swaps import sample_swaps, score_swaps
from unimm.evaluation.picture_judge import detector_judge
from unimm.evaluation.pictures import render_pictures

SWAPS = sample_swaps(12, seed=7001)


def test_words_and_demands_change_places():
    assert len({swap.original.prompt for swap in SWAPS}) == 12
    for swap in SWAPS:
        before, after = swap.original.metadata.include, swap.swapped.metadata.include
        assert [x.kind for x in before] == [x.kind for x in after]
        colours = [x.looks["color"] for x in before]
        assert [x.looks["color"] for x in after] == colours[::-1]
        old, new = swap.original.prompt.lower(), swap.swapped.prompt.lower()
        order = sorted(colours, key=old.index)
        assert sorted(colours, key=new.index) == order[::-1], (old, new)
        for article, vowels in (("a ", "aeiou"), ("an ", "bcdgprwy")):
            assert not any(f" {article}{letter}" in f" {new}" for letter in vowels), new


def recoloured(swap):
    """The original's scene with the tints exchanged."""
    scene = swap.original.scene
    first, second = {placed.figure.tint for placed in scene.placed}
    other = {first: second, second: first}
    placed = tuple(
        replace(x, figure=replace(x.figure, tint=other[x.figure.tint])) for x in scene.placed
    )
    return replace(scene, placed=placed)


@pytest.mark.parametrize("is_deaf", [False, True])
def test_a_generator_that_binds_and_one_that_is_deaf_to_colours(is_deaf):
    renderer = Renderer(device=torch.device("cpu"))
    scenes: dict[str, Any] = {swap.original.prompt: swap.original.scene for swap in SWAPS}
    for swap in SWAPS:
        scenes[swap.swapped.prompt] = swap.original.scene if is_deaf else recoloured(swap)
    asked: list[list[int]] = []

    def draw(prompts, seeds):
        asked.append(seeds)
        return render_pictures([scenes[prompt] for prompt in prompts], renderer, size=128)

    found = score_swaps(SWAPS, draw, detector_judge("unimm/assets/models/detector"), seed=5)
    assert asked[0] == asked[1] == list(range(5, 17))
    assert found["pairs"] == 12 and found["original"] >= 10 / 12
    if is_deaf:
        assert found["swapped"] == found["both"] == found["swapped_if_original"] == 0
    else:
        assert found["swapped_if_original"] >= 9 / 12
