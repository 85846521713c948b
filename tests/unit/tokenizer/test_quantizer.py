"""Codes and vectors under every quantization scheme."""

from typing import Any

import pytest
import torch

from unimm.metrics.codes import code_usage
from unimm.tokenizer.quantizer import Quantizer, QuantizerConfig, flat_vectors

SCHEMES: dict[str, dict[str, Any]] = {
    "vq": {"dim": 4},
    "simvq": {"dim": 4},
    "fsq": {"dim": 2, "levels": (8, 8)},
    "lfq": {"dim": 6},
    "bsq": {"dim": 6},
}


def make(name: str) -> Quantizer:
    torch.manual_seed(0)
    return Quantizer(QuantizerConfig(name=name, codebook_size=64, **SCHEMES[name]))


def encoded(quantizer: Quantizer, batch: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, quantizer.config.dim, 6, 5, generator=generator)


@pytest.mark.parametrize("name", SCHEMES)
def test_training_and_lookup_give_the_same_codes(name: str) -> None:
    quantizer, x = make(name), encoded(make(name))
    before = quantizer.eval()(x)
    trained = quantizer.train()(x)
    assert torch.equal(before.codes, trained.codes)
    torch.testing.assert_close(before.vectors, trained.vectors.detach())


@pytest.mark.parametrize("name", SCHEMES)
def test_a_code_is_nearest_to_its_own_vector(name: str) -> None:
    quantizer = make(name).eval()
    codes = torch.arange(64).reshape(2, 8, 4)
    vectors = quantizer.embed(codes)
    assert vectors.shape == (2, quantizer.config.dim, 8, 4)
    assert torch.equal(quantizer.nearest(vectors), codes)
    assert torch.equal(quantizer.nearest(vectors[0]), codes[0])


@pytest.mark.parametrize("name", SCHEMES)
def test_gradients_pass_straight_through(name: str) -> None:
    quantizer, x = make(name).train(), encoded(make(name)).requires_grad_(True)
    quantizer(x).vectors.sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SCHEMES)
def test_freezing_keeps_codes_and_drops_the_rest(name: str) -> None:
    quantizer, x = make(name).eval(), encoded(make(name))
    before = quantizer(x)
    quantizer.freeze(quantizer.codebook_vectors.detach())
    after = quantizer(x)
    assert torch.equal(before.codes, after.codes)
    torch.testing.assert_close(before.vectors, after.vectors)
    assert [*quantizer.state_dict()] == ["codebook"]
    with pytest.raises(ValueError, match="frozen"):
        quantizer.train()(x)


def test_lookup_equals_brute_force() -> None:
    quantizer = make("simvq").eval()
    x = encoded(quantizer)
    distances = (x.movedim(1, -1)[..., None, :] - quantizer.codebook_vectors).square().sum(-1)
    assert torch.equal(quantizer.nearest(x), distances.argmin(-1))


def test_training_equals_the_library() -> None:
    ours, theirs = make("vq").train(), make("vq").train()
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(4, 4, 6, 6, generator=generator)
        a, b = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
        mine = ours(a)
        vectors, codes, loss = theirs.layer(b.flatten(2).transpose(1, 2))
        weight = torch.randn(vectors.shape, generator=generator)
        ((mine.vectors.flatten(2).transpose(1, 2) * weight).sum() + mine.loss).backward()
        ((vectors * weight).sum() + loss.sum()).backward()
        assert torch.equal(mine.codes.flatten(1), codes)
        torch.testing.assert_close(mine.vectors.flatten(2).transpose(1, 2), vectors)
        torch.testing.assert_close(mine.loss, loss.sum())
        torch.testing.assert_close(a.grad, b.grad)
    for name, tensor in ours.layer.state_dict().items():
        torch.testing.assert_close(tensor, theirs.layer.state_dict()[name], msg=name)


def test_codebook_moves_towards_the_data_in_training_only() -> None:
    quantizer, x = make("vq"), encoded(make("vq"), batch=32)
    start = quantizer.codebook_vectors.clone()
    quantizer.eval()(x)
    assert torch.equal(quantizer.codebook_vectors, start)
    quantizer.train()
    first = quantizer(x)
    for _ in range(50):
        last = quantizer(x)
    error = (first.latents - first.vectors).square().mean()
    assert (last.latents - last.vectors).square().mean() < 0.8 * error


def test_dead_codes_move_onto_latents() -> None:
    quantizer = make("vq").train()
    one_place = torch.ones(4, 4, 6, 6)  # everything falls on one code
    for _ in range(400):
        quantizer(one_place)
    spread = quantizer.to_latents(encoded(quantizer, batch=32))
    arguments = {"min_share": 0.03, "generator": torch.Generator().manual_seed(0)}
    num_replaced = quantizer.replace_dead_codes(flat_vectors(spread), **arguments)
    assert num_replaced == 63
    used = code_usage(torch.bincount(quantizer.nearest(spread).flatten(), minlength=64))
    assert used.num_used > 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vqq"}, "did you mean 'vq'"),
        ({"name": "lfq", "codebook_size": 64, "dim": 8}, "needs dim 6"),
        ({"name": "fsq", "codebook_size": 64, "dim": 2, "levels": (8, 7)}, "product is"),
    ],
)
def test_configuration_errors_name_the_remedy(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizerConfig(**arguments)
