"""Shapes, receptive paths and sizes of the autoencoder."""

from typing import Any

import pytest
import torch

from unimm.tokenizer.autoencoder import AutoencoderConfig, Decoder, Encoder

TINY = AutoencoderConfig(widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1))


@pytest.mark.parametrize("size", [(8, 8), (16, 24)])
def test_any_size_that_the_factor_divides(size: tuple[int, int]) -> None:
    assert TINY.downsample == 4
    pixels = torch.zeros(2, 3, *size)
    latents = Encoder(TINY, 5)(pixels)
    assert latents.shape == (2, 5, size[0] // 4, size[1] // 4)
    assert Decoder(TINY, 5)(latents).shape == pixels.shape


def test_pictures_of_a_batch_do_not_mix() -> None:
    torch.manual_seed(0)
    encoder, decoder = Encoder(TINY, 5), Decoder(TINY, 5)
    pixels = torch.randn(3, 3, 16, 16)
    together = decoder(encoder(pixels))
    alone = torch.cat([decoder(encoder(picture[None])) for picture in pixels])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_every_parameter_learns_once_the_blocks_opened() -> None:
    torch.manual_seed(0)
    encoder, decoder = Encoder(TINY, 5), Decoder(TINY, 5)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    pixels = torch.randn(2, 3, 16, 16)
    for _ in range(3):  # blocks end in zeros, so gradients need a step to get in
        optimizer.zero_grad()
        (decoder(encoder(pixels)) - pixels).square().mean().backward()
        optimizer.step()
    dead = [p.shape for p in parameters if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead


def test_default_size_fits_the_shipped_budget() -> None:
    config = AutoencoderConfig()
    count = sum(p.numel() for m in (Encoder(config, 8), Decoder(config, 8)) for p in m.parameters())
    assert config.downsample == 8
    assert count < 7.9e6  # at most 8 MB in int8, codebook and scales included


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"encoder_blocks": (1, 1)}, "one number for each"),
        ({"widths": (60, 128, 256)}, "multiples of 16"),
        ({"num_heads": 3}, "must divide"),
    ],
)
def test_configuration_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AutoencoderConfig(**arguments)
