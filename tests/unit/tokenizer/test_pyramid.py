"""The pyramid against a plain implementation of VAR's description, and at its edges."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unimm.tokenizer.pyramid import (
    Pyramid,
    enlarge,
    enlarge_by_products,
    enlarge_codes,
    enlarge_codes_by_products,
    parse_schedule,
    schedule_name,
)
from unimm.tokenizer.quantizer import Quantizer, QuantizerConfig

TEN_SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
SCHEDULES = [TEN_SCALES, (1, 2, 4, 8), (1, 2, 3, 5, 8), (1, 16), (4, 16)]


def area_matrix(small: int, large: int) -> torch.Tensor:
    """``(small, large)``: cell i averages the large cells that it touches, as adaptive pooling."""
    matrix = np.zeros((small, large))
    for i in range(small):
        first, last = i * large // small, -(-(i + 1) * large // small)
        matrix[i, first:last] = 1 / (last - first)
    return torch.tensor(matrix, dtype=torch.float32)


def bicubic_matrix(large: int, small: int, a: float = -0.75) -> torch.Tensor:
    """``(large, small)``: Keys' cubic kernel at half-pixel centres, edges repeated."""

    def kernel(x: float) -> float:
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    matrix = np.zeros((large, small))
    for i in range(large):
        centre = (i + 0.5) * small / large - 0.5
        base = int(np.floor(centre))
        for j in range(base - 1, base + 3):
            matrix[i, min(max(j, 0), small - 1)] += kernel(centre - j)
    return torch.tensor(matrix, dtype=torch.float32)


def reference(latents, scales, codebook, weights, biases):
    """VAR, Algorithms 1 and 2, with phi = 0.5 x + 0.5 conv(x), four convolutions by tick."""
    side, last = scales[-1], len(scales) - 1
    rest, total = latents.clone(), torch.zeros_like(latents)
    ticks = np.linspace(1 / 3 / 4, 1 - 1 / 3 / 4, 4)
    codes, inputs = [], []
    for k, n in enumerate(scales):
        if k:
            down = area_matrix(n, side)
            inputs.append(torch.einsum("ip,jq,bcpq->bcij", down, down, total))
        down = area_matrix(n, side)
        small = torch.einsum("ip,jq,bcpq->bcij", down, down, rest)
        distances = (small[:, :, :, :, None] - codebook.t()[None, :, None, None]).square().sum(1)
        code = distances.argmin(-1)  # (B, n, n)
        up = bicubic_matrix(side, n) if k != last else torch.eye(side)
        large = torch.einsum("pi,qj,bijc->bcpq", up, up, codebook[code])
        phi = int(np.argmin(np.abs(ticks - k / last)))
        large = 0.5 * large + 0.5 * F.conv2d(large, weights[phi], biases[phi], padding=1)
        total = total + large
        rest = rest - large
        codes.append(code)
    return codes, inputs, total


def parts(dim: int = 6) -> tuple[Pyramid, Quantizer]:
    torch.manual_seed(0)
    pyramid = Pyramid(dim).requires_grad_(False)
    for parameter in pyramid.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))
    quantizer = Quantizer(QuantizerConfig(codebook_size=96, dim=dim))
    quantizer.freeze(torch.randn(96, dim))
    return pyramid, quantizer


@pytest.mark.parametrize("scales", SCHEDULES, ids=schedule_name)
def test_codes_inputs_and_sum_equal_the_description(scales) -> None:
    pyramid, quantizer = parts()
    latents = torch.randn(3, 6, scales[-1], scales[-1])
    weights = [c.weight for c in pyramid.convolutions]
    biases = [c.bias for c in pyramid.convolutions]
    codes, inputs, total = reference(latents, scales, quantizer.codebook_vectors, weights, biases)
    found = pyramid.encode(latents, scales, quantizer)
    for ours, theirs in zip(found.codes, codes, strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(found.sums[-1], total, atol=1e-5, rtol=0)
    fed = pyramid.inputs(found.codes, scales, quantizer)
    assert len(fed) == len(inputs) == len(scales) - 1
    for ours, theirs in zip(fed, inputs, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_sums_of_codes_are_those_of_the_encoding() -> None:
    pyramid, quantizer = parts()
    scales = (1, 2, 4, 8)
    found = pyramid.encode(torch.randn(2, 6, 8, 8), scales, quantizer)
    again = pyramid.sums(found.codes, scales, quantizer)
    torch.testing.assert_close(again, torch.stack(found.sums, dim=1))


def test_convolutions_are_shared_by_the_nearest_tick() -> None:
    pyramid = Pyramid(4)
    assert [pyramid.convolution_of(k, 10) for k in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [pyramid.convolution_of(k, 2) for k in range(2)] == [0, 3]


@torch.no_grad()
def test_each_scale_brings_the_sum_nearer_to_smooth_latents() -> None:
    torch.manual_seed(0)
    pyramid, quantizer = Pyramid(2), Quantizer(QuantizerConfig(codebook_size=289, dim=2))
    grid = torch.linspace(-1, 1, 17)
    quantizer.freeze(torch.cartesian_prod(grid, grid))
    latents = F.interpolate(torch.rand(4, 2, 3, 3) - 0.5, size=(16, 16), mode="bilinear")
    sums = pyramid.encode(latents, (1, 2, 4, 8, 16), quantizer).sums
    errors = [float((latents - total).square().mean()) for total in sums]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * errors[0]


def test_gradients_reach_the_convolutions_only() -> None:
    torch.manual_seed(0)
    pyramid, quantizer = Pyramid(4), Quantizer(QuantizerConfig(codebook_size=32, dim=4))
    latents = torch.randn(2, 4, 8, 8, requires_grad=True)
    pyramid.encode(latents, (1, 2, 4, 8), quantizer).sums[-1].square().sum().backward()
    assert latents.grad is None
    grads = [parameter.grad for parameter in pyramid.parameters()]
    assert all(grad is not None and grad.any() for grad in grads)


@pytest.mark.parametrize("name", ["", "16", "1-2-x", "4-2", "0-4", "1--2", "1-1-2"])
def test_bad_schedules_are_named(name: str) -> None:
    with pytest.raises(ValueError, match="no schedule.*1-2-4-8-16"):
        parse_schedule(name)


def test_names_round_trip_and_another_grid_is_refused() -> None:
    assert parse_schedule(schedule_name(TEN_SCALES)) == TEN_SCALES
    pyramid, quantizer = parts()
    with pytest.raises(ValueError, match=r"1-2-4 ends in 4x4 codes, but the picture has 8x4"):
        pyramid.encode(torch.zeros(1, 6, 8, 4), (1, 2, 4), quantizer)


@pytest.mark.parametrize("side", [1, 2, 5, 13])
def test_enlarging_by_products_is_bicubic(side: int) -> None:
    x = torch.randn(3, 4, side, side, generator=torch.Generator().manual_seed(side))
    expected = F.interpolate(x, size=(16, 16), mode="bicubic")
    torch.testing.assert_close(enlarge_by_products(x, 16), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(enlarge(x, 16), expected)
    assert enlarge(x, side) is x


@pytest.mark.parametrize("num_scales", [1, 9, 10])
def test_scales_are_enlarged_together_as_alone(num_scales: int) -> None:
    _, quantizer = parts()
    codes = [torch.randint(96, (3, n, n)) for n in TEN_SCALES[:num_scales]]
    found = enlarge_codes_by_products(codes, 16, quantizer)
    assert found.shape == (num_scales, 3, 6, 16, 16) and found.is_contiguous()
    torch.testing.assert_close(found, enlarge_codes(codes, 16, quantizer), atol=1e-5, rtol=1e-5)
    for grid, large in zip(codes, found, strict=True):
        expected = enlarge(quantizer.embed(grid), 16)
        torch.testing.assert_close(large, expected, atol=1e-5, rtol=1e-5)
