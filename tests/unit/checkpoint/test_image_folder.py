"""The image tokenizer's folder: written, read back, refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unimm.checkpoint import load_image_tokenizer, save_image_tokenizer
from unimm.checkpoint.weights import Precision
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.image_state import image_tokenizer_state
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


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 0.0), ("bfloat16", 5e-2)])
def test_image_tokenizer_round_trip(
    tokenizer: ImageTokenizer, tmp_path: Path, precision: Precision, tolerance: float
) -> None:
    tokenizer.latent_std.fill_(0.37)
    save_image_tokenizer(tokenizer, tmp_path, precision=precision)
    loaded = load_image_tokenizer(tmp_path)
    assert loaded.config == tokenizer.config
    assert not any(p.requires_grad for p in loaded.parameters())
    torch.testing.assert_close(loaded.codebook_vectors, tokenizer.codebook_vectors)
    torch.testing.assert_close(loaded.latent_std, tokenizer.latent_std)
    codes = torch.arange(64).reshape(1, 8, 8)
    drawn, wanted = loaded.decode_codes(codes), tokenizer.decode_codes(codes)
    torch.testing.assert_close(drawn, wanted, atol=tolerance, rtol=0)
    # A loaded tokenizer is written again as it is.
    state = image_tokenizer_state(loaded)
    assert state.keys() == image_tokenizer_state(tokenizer).keys() == loaded.state_dict().keys()


def test_an_image_tokenizer_of_other_parts_is_refused(
    tokenizer: ImageTokenizer, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="missing"):
        load_image_tokenizer(tmp_path)
    save_image_tokenizer(tokenizer, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantizer"]["codebook_size"] = 128
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"quantizer.codebook is \(64, 4\)"):
        load_image_tokenizer(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("latent_std")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="latent_std"):
        load_image_tokenizer(tmp_path)
