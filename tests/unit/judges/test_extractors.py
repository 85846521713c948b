"""Extractors: clean-fid's numbers, folders of real architectures, errors that help."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image

from unimm.judges.detector import Detector, DetectorConfig
from unimm.judges.extractors import clean_resize, detector_extractor, load_extractor


def levels(num: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (num, 3, side, side), generator=generator).float()


@pytest.mark.parametrize("side", [64, 300, 512])
@pytest.mark.parametrize("size", [224, 299])
def test_resizing_gives_the_numbers_of_pil(side: int, size: int) -> None:
    picture = levels(1, side)
    expected = []
    for channel in picture[0].numpy():  # as clean-fid: floats, a channel at a time, not rounded
        image = Image.fromarray(channel).resize((size, size), Image.Resampling.BICUBIC)
        expected.append(np.asarray(image).clip(0, 255))
    got = (clean_resize(picture / 127.5 - 1, size)[0] + 1) * 127.5
    np.testing.assert_allclose(got.numpy(), np.stack(expected), atol=2e-2)


def test_detector_features_are_named_and_do_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    config = DetectorConfig(image_size=64, channels=(8, 8, 16, 16), hidden=16)
    extractor = detector_extractor(Detector(config).eval())
    assert extractor.name == "detector"
    pixels = levels(3, 128) / 127.5 - 1
    features = extractor(pixels)
    assert features.shape == (3, 16) and features.dtype == torch.float32
    torch.testing.assert_close(extractor(pixels[1:2]), features[1:2], rtol=1e-4, atol=1e-5)


def test_bad_pixels_are_refused() -> None:
    extractor = detector_extractor(Detector(DetectorConfig(image_size=64)).eval())
    with pytest.raises(ValueError, match="uint8"):
        extractor(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ValueError, match="reach 255"):
        extractor(torch.full((1, 3, 64, 64), 255.0))


def test_clip_folder_gives_the_projected_embedding(tmp_path) -> None:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    model = CLIPVisionModelWithProjection(config).eval()
    model.save_pretrained(tmp_path)
    statistics = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(statistics))
    extractor = load_extractor(tmp_path)
    assert extractor.name == "clip"
    pixels = levels(2, 32) / 127.5 - 1  # no resizing: the network's own size
    normal = (pixels + 1) / 2 - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)
    normal = normal / torch.tensor([0.2, 0.2, 0.25]).view(1, 3, 1, 1)
    with torch.no_grad():
        expected = model(pixel_values=normal).image_embeds
    torch.testing.assert_close(extractor(pixels), expected, rtol=1e-4, atol=1e-4)


def test_dinov2_folder_gives_the_class_token(tmp_path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    extractor = load_extractor(tmp_path)
    pixels = levels(2, 28) / 127.5 - 1
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        hidden = model(pixel_values=((pixels + 1) / 2 - mean) / std).last_hidden_state
    assert extractor.name == "dinov2"
    torch.testing.assert_close(extractor(pixels), hidden[:, 0], rtol=1e-4, atol=1e-4)


def test_inception_folder_is_read_by_timm(tmp_path) -> None:
    if importlib.util.find_spec("timm") is None:
        (tmp_path / "config.json").write_text('{"architecture": "inception_v3"}')
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(ValueError, match="timm's inception_v3; pip install timm"):
            load_extractor(tmp_path)
        return
    import timm  # pyright: ignore[reportMissingImports]

    model = timm.create_model("inception_v3", num_classes=10).eval()
    timm.models.save_for_hf(model, tmp_path, safe_serialization=True)
    extractor = load_extractor(tmp_path)
    pixels = levels(1, 128) / 127.5 - 1
    with torch.no_grad():
        maps = model.forward_features(clean_resize(pixels, 299))
        expected = model.forward_head(maps, pre_logits=True)
    assert extractor.name == "inception_v3"
    torch.testing.assert_close(extractor(pixels), expected, rtol=1e-4, atol=1e-4)


def test_folders_that_hold_no_model_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_extractor(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        load_extractor(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="holds a 'llama'"):
        load_extractor(tmp_path)
