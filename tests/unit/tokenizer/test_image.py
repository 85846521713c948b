"""The image tokenizer as its users see it: encode, decode, save, load, refuse."""

import pytest
import torch

from unimm.document import ImageTokens
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.quantizer import QuantizerConfig

CONFIG = ImageTokenizerConfig(
    autoencoder=AutoencoderConfig(widths=(16, 32), encoder_blocks=(1, 1), decoder_blocks=(1, 1)),
    quantizer=QuantizerConfig(codebook_size=64, dim=4),
    image_size=32,
)


@pytest.fixture
def tokenizer() -> ImageTokenizer:
    torch.manual_seed(0)
    return ImageTokenizer(CONFIG).eval()


def pictures(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("side", [16, 32, 48])
def test_round_trip_shapes_at_any_size(tokenizer: ImageTokenizer, side: int) -> None:
    pixels = pictures(2, 3, side, side)
    tokens = tokenizer.encode(pixels)
    grid = tokenizer.grid_size(side, side)
    assert grid == (side // 4, side // 4)
    assert tokens.codes is not None and tokens.latents is not None
    assert tokens.codes.shape == (2, *grid) and tokens.codes.dtype == torch.int64
    assert tokens.latents.shape == (2, 4, *grid)
    drawn = tokenizer.decode(tokens)
    assert drawn.shape == pixels.shape and drawn.abs().max() <= 1


def test_codes_are_the_quantized_latents(tokenizer: ImageTokenizer) -> None:
    tokens = tokenizer.encode(pictures(2, 3, 32, 32))
    assert tokens.codes is not None and tokens.latents is not None
    assert torch.equal(tokenizer.quantize(tokens.latents), tokens.codes)
    vectors = tokenizer.codebook_vectors[tokens.codes].movedim(-1, 1)
    torch.testing.assert_close(tokenizer.decode_vectors(vectors), tokenizer.decode(tokens))


def test_one_picture_is_a_batch_of_one(tokenizer: ImageTokenizer) -> None:
    pixels = pictures(2, 3, 32, 32)
    alone, together = tokenizer.encode(pixels[1]), tokenizer.encode(pixels)[1]
    assert alone.codes is not None and together.codes is not None
    assert torch.equal(alone.codes, together.codes)
    torch.testing.assert_close(
        tokenizer.decode(alone), tokenizer.decode(tokenizer.encode(pixels))[1], atol=1e-5, rtol=0
    )


def test_decode_takes_codes_or_latents(tokenizer: ImageTokenizer) -> None:
    tokens = tokenizer.encode(pictures(1, 3, 32, 32))
    from_latents = tokenizer.decode(ImageTokens(latents=tokens.latents))
    torch.testing.assert_close(tokenizer.decode(tokens, prefer_latents=True), from_latents)
    assert not torch.allclose(tokenizer.decode(tokens), from_latents)
    with pytest.raises(ValueError, match="neither codes nor latents"):
        tokenizer.decode(ImageTokens())


def test_bypass_decodes_the_last_pictures_from_latents(tokenizer: ImageTokenizer) -> None:
    pixels = pictures(4, 3, 32, 32)
    output = tokenizer(pixels, num_bypassed=1)
    tokens = tokenizer.encode(pixels)
    assert tokens.codes is not None and tokens.latents is not None
    by_codes = tokenizer.decoder(tokenizer.quantizer.embed(tokens.codes))
    torch.testing.assert_close(output.pixels[:3], by_codes[:3], atol=1e-5, rtol=0)
    torch.testing.assert_close(
        output.pixels[3:], tokenizer.decoder(tokens.latents[3:]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 3, 30, 32), "30x32 pixels does not fit.*28x32|30x32.*32x32"),
        (torch.zeros(1, 4, 32, 32), "drop alpha"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "uint8 / 127.5"),
        (torch.full((1, 3, 32, 32), float("nan")), "nan"),
        (torch.full((1, 3, 32, 32), 255.0), "255"),
    ],
)
def test_bad_pixels_are_named(
    tokenizer: ImageTokenizer, pixels: torch.Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tokenizer.encode(pixels)


@pytest.mark.parametrize("code", [-1, 64])
def test_codes_out_of_range_are_named(tokenizer: ImageTokenizer, code: int) -> None:
    with pytest.raises(ValueError, match=f"{code}.*codebook of 64"):
        tokenizer.decode_codes(torch.full((1, 8, 8), code))
