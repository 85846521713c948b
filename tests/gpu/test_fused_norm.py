"""A decoder by our kernels; TRITON_INTERPRET=1 runs them on a CPU that has Triton."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from pipelines import tiny_pipeline
from torch import nn
from torch.nn import functional

from unimm import pictures
from unimm.document import ImageTokens
from unimm.nn.recorded import unrecorded
from unimm.pictures import decode_images
from unimm.tokenizer import fused_norm
from unimm.tokenizer.autoencoder import AutoencoderConfig, Decoder
from unimm.tokenizer.fast_decoder import draw
from unimm.tokenizer.fused_norm import apply_norm, settle, sum_channels

pytestmark = KERNEL_MARKS
SHAPES = [(1, 16, 2, 2), (2, 160, 5, 3), (3, 64, 16, 16), (1, 32, 70, 66), (2, 512, 3, 3)]


def numbers(shape, dtype):
    x = 3 * torch.randn(shape, device=DEVICE) + 1
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def randomise(module):
    """Nothing is zero or one."""
    for parameter in module.parameters():
        parameter.requires_grad_(False).add_(0.1 * torch.randn_like(parameter))
    return module.to(DEVICE)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_silu", [True, False])
def test_norm_and_silu_are_pytorchs(dtype, shape, has_silu):
    norm = randomise(nn.GroupNorm(16, shape[1]))
    x, bias = numbers(shape, dtype), torch.randn(shape[1], device=DEVICE)
    found = apply_norm(x, sum_channels(x, bias), norm, bias=bias, has_silu=has_silu)
    expected = norm(x.float() + bias[:, None, None])
    expected = functional.silu(expected) if has_silu else expected
    assert found.is_contiguous(memory_format=torch.channels_last) and found.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_residual", [True, False])
@pytest.mark.parametrize("scale", [1, 2])
def test_bias_residual_and_upsampling_are_pytorchs(dtype, shape, has_residual, scale):
    x, bias = numbers(shape, dtype), torch.randn(shape[1], device=DEVICE)
    residual = numbers(shape, dtype) if has_residual else None
    found, sums = settle(x, bias, residual, is_doubled=scale == 2)
    expected = x.float() + bias[:, None, None]
    expected = expected if residual is None else expected + residual.float()
    total = torch.stack([expected.sum((2, 3)), expected.square().sum((2, 3))], dim=1)
    torch.testing.assert_close(sums.sum(1), total, atol=1e-2, rtol=1e-4)
    expected = functional.interpolate(expected, scale_factor=scale, mode="nearest").to(dtype)
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, expected)


def test_a_program_sums_many_tiles(monkeypatch):
    x = numbers((3, 64, 17, 16), torch.float32)  # a tile has 64 places
    whole = sum_channels(x)
    monkeypatch.setattr(fused_norm, "_PROGRAMS", 6)
    in_two = sum_channels(x)
    assert whole.shape[1] == 5 and in_two.shape[1] == 2
    torch.testing.assert_close(in_two.sum(1), whole.sum(1))


CONFIGS = [
    AutoencoderConfig(),
    AutoencoderConfig(widths=(16, 48, 160), encoder_blocks=(0,) * 3, decoder_blocks=(1, 0, 1)),
    AutoencoderConfig(widths=(16, 32), encoder_blocks=(0,) * 2, decoder_blocks=(1, 2), num_heads=0),
    AutoencoderConfig(widths=(16,), encoder_blocks=(0,), decoder_blocks=(0,), patch_size=1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_whole_decoder_draws_the_same(config):
    decoder = randomise(Decoder(config, 5))
    vectors = torch.randn(2, 5, 4, 6, device=DEVICE)
    found, expected = draw(decoder, vectors), decoder(vectors)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    scale = expected.abs().max()
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
def test_in_half_precision_it_errs_about_as_autocast_does(config):
    decoder = randomise(Decoder(config, 5))
    vectors = torch.randn(2, 5, 4, 6, device=DEVICE)
    expected = decoder(vectors)
    with torch.autocast(DEVICE, torch.bfloat16):
        found, cast = draw(decoder, vectors), decoder(vectors)
    error, allowed = (found - expected).std(), (cast - expected).std()
    assert 0 < error <= 2 * allowed  # which on a CPU rounds less often
    assert error < 0.03 * expected.std()


@pytest.mark.skipif(IS_INTERPRETED, reason="copies from a GPU")
def test_many_pictures_leave_the_gpu_whole(monkeypatch):
    drawing = tiny_pipeline().to("cuda", torch.float32)
    side = drawing.image_size // drawing.image_tokenizer.downsample
    codes = torch.randint(drawing.image_tokenizer.codebook_size, (70, side, side))
    together = decode_images(drawing, [ImageTokens(codes=x) for x in codes])
    monkeypatch.setattr(pictures, "_OVERLAP", 6 * drawing.image_size**2)
    in_turns = decode_images(drawing, [ImageTokens(codes=x) for x in codes])
    for one, other in zip(together, in_turns, strict=True):
        difference = np.array(one).astype(int) - np.array(other)
        assert abs(difference).max() <= 1 and np.array(one).std() > 0


@pytest.mark.skipif(IS_INTERPRETED, reason="records on a GPU")
@pytest.mark.parametrize("name", ["next_token", "next_scale", "diffusion"])
@pytest.mark.parametrize("count", [1, 7])
def test_what_is_recorded_draws_each_picture(name, count):
    drawing = tiny_pipeline(name).to("cuda", torch.float32)
    drawing.model.requires_grad_(False)
    drawn, side = list[np.ndarray](), drawing.image_size
    for _ in range(4):  # run, recorded, repeated
        pixels = torch.rand(count, 3, side, side, device="cuda") * 2 - 1
        encoded = drawing.image_tokenizer.encode(pixels, drawing.schedule)
        tokens = [encoded[i].map(torch.Tensor.cpu) for i in range(count)]
        drawn.append(np.stack([np.array(x) for x in decode_images(drawing, tokens)]))
        with unrecorded():
            expected = np.stack([np.array(x) for x in decode_images(drawing, tokens)])
        assert abs(drawn[-1].astype(int) - expected).max() <= 1
    assert all((a != b).any() for a, b in pairwise(drawn))
