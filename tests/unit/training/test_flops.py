"""Counted operations equal counts made by hand."""

import pytest
import torch
from helpers import (
    BACKBONE,
    SPEC,
    SPECIAL,
    packed,
    random_story,
    tiny_image_tokenizer,
    tiny_model,
    tiny_objective,
)

from unimm.document import attention_rule, count_visible, layout_document, pack
from unimm.objectives import OBJECTIVES
from unimm.training.log import ModelFlops

N = SPEC.grid_size**2
DIM, V = BACKBONE.dim, SPEC.codebook_size
# A layer: queries and output, keys and values of half as many heads, three of the feed-forward.
TRUNK = BACKBONE.depth * (2 * DIM * DIM + 2 * DIM * DIM // 2 + 3 * DIM * 48)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pairs_are_those_of_the_dense_rule(name):
    rows = [[random_story(0), random_story(1, index=1)], [random_story(2, num_pages=3, index=2)]]
    batch = packed(tiny_objective(name), rows, row_length=200)
    assert count_visible(batch) == int(attention_rule(batch).sum())


def test_pairs_of_objectives_side_by_side():
    heads = tuple(OBJECTIVES)
    layouts = [
        layout_document(random_story(i, index=i), tiny_objective(name), SPECIAL)
        for i, name in enumerate(heads)
    ]
    batch = pack([layouts[:3], layouts[3:]], row_length=400, heads=heads)
    assert count_visible(batch) == int(attention_rule(batch).sum())


def denoiser() -> int:
    """Multiplications of one forward of the tiny denoiser, two blocks of width 32, patches of 1."""
    time = 256 * DIM + DIM * DIM
    ends = N * (SPEC.latent_dim * DIM + DIM * DIM + 2 * DIM * DIM + DIM * SPEC.latent_dim)
    weights = 6 * DIM * DIM + DIM * DIM + 2 * DIM * DIM + DIM * DIM + 8 * DIM * DIM
    return time + ends + 2 * (N * weights + 2 * N * N * DIM)


# Multiplications of one picture's way in and out, forward; its own lines are the objective's.
HEADS = {
    "next_token": N * DIM * V,
    "next_scale": (4 + 16) * SPEC.latent_dim * DIM + (1 + 4 + 16) * DIM * V,
    "masked": N * DIM * V,
    "diffusion": 4 * denoiser(),  # num_draws
    # Patches, the time twice (in and out), modulation of one condition, velocities.
    "transfusion": N * SPEC.latent_dim * DIM
    + 2 * (256 * DIM + DIM * DIM)
    + 2 * DIM * DIM
    + N * DIM * SPEC.latent_dim,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_operations_equal_a_count_by_hand(name):
    model = tiny_model(name)
    batch = packed(tiny_objective(name), [[random_story(0)], [random_story(1, index=1)]])
    pictures, texts = len(batch.slots[name].seeds), len(batch.slots["text"].index)
    assert pictures == 4 and texts > 0
    pairs = int(attention_rule(batch).sum())
    # Two operations a multiplication, and the backward is twice the forward.
    expected = 6 * (
        TRUNK * batch.input_ids.numel()
        + BACKBONE.depth * 2 * DIM * pairs
        + SPECIAL.vocab_size * DIM * texts
        + HEADS[name] * pictures
    )
    assert ModelFlops(model, tiny_image_tokenizer())(batch) == pytest.approx(expected, rel=1e-12)


def test_counting_draws_no_global_randomness():
    torch.manual_seed(0)
    model = tiny_model("diffusion")
    tokenizer = tiny_image_tokenizer()
    before = torch.get_rng_state()
    ModelFlops(model, tokenizer)
    assert torch.equal(before, torch.get_rng_state())
