"""Denoising objectives learn to draw what a text asks for, from any noise."""

from dataclasses import replace

import pytest
import torch
from helpers import (
    BACKBONE,
    SPEC,
    SPECIAL,
    packed,
    tiny_image_tokenizer,
    tiny_model,
    tiny_objective,
)

from unimm.document import Document, ImageTokens, Part
from unimm.generation.engine import Engine, picture_lengths
from unimm.model import ModelConfig, UniMM
from unimm.nn.denoiser import DenoiserConfig
from unimm.nn.sampling import SamplingConfig
from unimm.objectives.diffusion import DiffusionConfig
from unimm.objectives.latents import LatentSpace, patch_positions
from unimm.objectives.next_token import NextTokenConfig

TEXTS = ([7, 8], [9, 10])


def pictures() -> list[ImageTokens]:
    """One picture a text: random codes, their vectors as latents."""
    tokenizer = tiny_image_tokenizer()
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(SPEC.codebook_size, (2, 4, 4), generator=generator)
    return [ImageTokens(codes=x, latents=tokenizer.quantizer.embed(x)) for x in codes]


def learned(name: str, steps: int):
    model = tiny_model(name)
    optimizer = torch.optim.AdamW(model.parameters(), lr=8e-3, weight_decay=0.0)
    for step in range(steps):
        documents = [
            Document(
                parts=(Part(text_ids=torch.tensor(text)), Part(tokens=tokens)),
                is_open=True,
                index=1000 * step + i,  # other times and noise at every step
            )
            for i, (text, tokens) in enumerate(zip(TEXTS, pictures(), strict=True))
        ]
        batch = packed(
            tiny_objective(name), [[x, replace(x, index=x.index + 500)] for x in documents]
        )
        optimizer.zero_grad()
        model(batch).total.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 8e-3 * (1 - step / steps) + 1e-5
    return model.eval()


@torch.no_grad()
def drawn(model, seed: int, **sampling):
    documents = [Document(parts=(Part(text_ids=torch.tensor(text)),)) for text in TEXTS]
    engine = Engine(
        model,
        documents,
        generators=[torch.Generator().manual_seed(seed + i) for i in range(2)],
        capacity=10 + 4 * picture_lengths(model)[1],
        is_guided=False,
        objective="diffusion" if "diffusion" in model.config.heads else None,
    )
    codes = engine.draw(SamplingConfig(**sampling)).codes
    assert codes is not None
    return codes


@pytest.mark.parametrize(
    ("name", "num_steps"),
    [("diffusion", 250), pytest.param("transfusion", 700, marks=pytest.mark.long)],
)
def test_each_text_gets_its_picture_from_any_noise(name, num_steps):
    model = learned(name, num_steps)
    wanted = ImageTokens.stack(pictures()).codes
    assert wanted is not None
    for steps in (4, 20):
        found = torch.stack([drawn(model, seed, num_steps=steps) for seed in (0, 10, 20)])
        assert float((found == wanted).double().mean()) > 0.9
        assert float((found.flip(1) == wanted).double().mean()) < 0.5


def test_latents_are_standardised_and_restored():
    tokenizer = tiny_image_tokenizer()
    tokenizer.latent_mean.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    tokenizer.latent_std.copy_(torch.tensor([0.5, 1.0, 2.0, 0.1]))
    space = LatentSpace(tokenizer)
    latents = torch.randn(3, 4, 4, 4)
    torch.testing.assert_close(space.restore(space.standardise(latents)), latents)
    torch.testing.assert_close(space.standardise(latents)[:, 3], (latents[:, 3] - 2) / 0.1)
    codes = torch.randint(SPEC.codebook_size, (2, 4, 4))
    tokens = space.to_tokens(space.standardise(tokenizer.quantizer.embed(codes)))
    assert tokens.codes is not None and torch.equal(tokens.codes, codes)
    tokenizer.latent_std.zero_()
    with pytest.raises(ValueError, match="latent_std must be positive"):
        LatentSpace(tokenizer)


def test_patches_lie_in_the_middle_of_their_codes():
    assert patch_positions(4, 4, 2).tolist() == [[0, 1, 1], [0, 1, 3], [0, 3, 1], [0, 3, 3]]
    assert patch_positions(2, 3, 1)[4].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="4x4 codes cannot be cut into patches of 3"):
        patch_positions(4, 4, 3)


def test_codes_alone_do_not_teach():
    model = tiny_model("diffusion")
    parts = (Part(text_ids=torch.tensor([7])), Part(tokens=replace(pictures()[0], latents=None)))
    batch = packed(tiny_objective("diffusion"), [[Document(parts=parts)]])
    with pytest.raises(ValueError, match="no latents"):
        model(batch)
    assert SPECIAL.boi in batch.input_ids


def test_scalars_that_no_document_carries_are_refused():
    with pytest.raises(ValueError, match="num_scalars 2: documents carry no"):
        DiffusionConfig(denoiser=DenoiserConfig(num_scalars=2))


def test_shipped_it_draws_the_same_without_other_objectives():
    torch.manual_seed(0)
    model = UniMM(
        ModelConfig(
            backbone=BACKBONE,
            objectives=(NextTokenConfig(), tiny_objective("diffusion")),
        ),
        special=SPECIAL,
        spec=SPEC,
    )
    shipped = model.to_ship(["diffusion"])
    assert shipped.config.heads == ("diffusion",)
    missing = model.state_dict().keys() - shipped.state_dict().keys()
    assert missing and all(name.startswith("objectives.next_token.") for name in missing)
    for found in (model, shipped):
        found.bind(tiny_image_tokenizer())
    assert torch.equal(drawn(model.eval(), 3), drawn(shipped, 3))
    with pytest.raises(ValueError, match="this model draws by .*, not by 'masked'"):
        model.to_ship(["masked"])
