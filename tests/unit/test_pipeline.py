import io

import numpy as np
import pytest
import torch
from PIL import Image
from pipelines import tiny_pipeline

import unimm.pipeline
from unimm import pictures
from unimm.document import ImageTokens
from unimm.generation import generate_story
from unimm.nn.linear import has_int8_kernel
from unimm.pictures import decode_image, decode_images, encode_image
from unimm.pipeline import load_pipeline


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    count = width * height * len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, (width, height), np.random.default_rng(0).bytes(count))


def test_decode_draws_what_the_tokenizer_draws(pipeline):
    tokens = encode_image(pipeline, noise(16, 16))
    assert tokens.codes is not None and tokens.codes.shape == (4, 4)
    picture = decode_image(pipeline, tokens)
    assert picture.size == (16, 16) and picture.mode == "RGB"
    pixels = pipeline.image_tokenizer.decode(tokens)
    expected = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    assert torch.equal(torch.tensor(np.array(picture)), expected)


@pytest.mark.parametrize(("frozen", "is_recorded"), [("text_embedding", False), ("", True)])
def test_no_recording_keeps_memory_beside_training(frozen, is_recorded):
    drawing = tiny_pipeline()
    drawing.model.requires_grad_(True)
    drawing.model.get_submodule(frozen).requires_grad_(False)
    codes = torch.zeros(4, 4, dtype=torch.int64)
    decode_images(drawing, [ImageTokens(codes=codes)])
    assert (drawing.image_tokenizer in pictures._recorders) == is_recorded


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (7, 300), (640, 480), (17, 16)])
def test_pictures_of_any_size_are_read(pipeline, size):
    codes = encode_image(pipeline, noise(*size)).codes
    assert codes is not None and codes.shape == (4, 4)


def test_the_middle_square_is_read(pipeline):
    wide = Image.new("RGB", (48, 16), "red")
    square = noise(16, 16)
    wide.paste(square, (16, 0))
    found, expected = encode_image(pipeline, wide).codes, encode_image(pipeline, square).codes
    assert found is not None and expected is not None and torch.equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "LA"])
def test_other_colour_modes_are_read(pipeline, mode):
    assert encode_image(pipeline, noise(16, 16, mode)).codes is not None


def test_transparency_becomes_white(pipeline):
    clear, white = Image.new("RGBA", (16, 16), (255, 0, 0, 0)), Image.new("RGB", (16, 16), "white")
    found, expected = encode_image(pipeline, clear).codes, encode_image(pipeline, white).codes
    assert found is not None and expected is not None and torch.equal(found, expected)


def test_files_and_tensors_read_like_pictures(pipeline, tmp_path):
    picture = noise(16, 16)
    picture.save(tmp_path / "a.png")
    pixels = torch.tensor(np.array(picture)).permute(2, 0, 1)
    expected = encode_image(pipeline, picture).codes
    assert expected is not None
    for given in (tmp_path / "a.png", str(tmp_path / "a.png"), pixels, pixels / 127.5 - 1):
        codes = encode_image(pipeline, given).codes
        assert codes is not None and torch.equal(codes, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no picture at"), (b"no picture", "not a picture"), ("cut", "not a picture")],
)
def test_bad_files_are_named(pipeline, tmp_path, content, message):
    path = tmp_path / "a.png"
    if content == "cut":
        buffer = io.BytesIO()
        noise(64, 64).save(buffer, "PNG")
        content = buffer.getvalue()[:2000]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        encode_image(pipeline, path)
    assert "a.png" in str(error.value)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(1, 16, 16), r"must be \(3, H, W\), got \(1, 16, 16\)"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), "torch.int64"),
        (torch.full((3, 16, 16), 2.0), "2 to 2"),
        (torch.full((3, 16, 16), float("nan")), "nan"),
    ],
)
def test_bad_tensors_are_named(pipeline, pixels, message):
    with pytest.raises(ValueError, match=message):
        encode_image(pipeline, pixels)


def test_code_out_of_range_is_refused(pipeline):
    with pytest.raises(ValueError, match="codebook of 24"):
        decode_image(pipeline, ImageTokens(codes=torch.full((4, 4), 24)))


def test_several_pictures_are_not_one(pipeline):
    codes = torch.zeros(2, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"\(2, 4, 4\) of several pictures"):
        decode_image(pipeline, ImageTokens(codes=codes))
    assert len(decode_images(pipeline, [ImageTokens(codes=x) for x in codes])) == 2
    assert decode_images(pipeline, []) == []


def test_shipped_names_come_first_and_unknown_ones_get_the_nearest(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(unimm.pipeline, "SHIPPED", tmp_path)
    pipeline.save_pretrained(tmp_path / "storyworld")
    assert load_pipeline("storyworld").name == "storyworld"
    with pytest.raises(
        ValueError, match=r"'storywrld'; did you mean 'storyworld'\? shipped: story"
    ):
        load_pipeline("storywrld")


def test_hub_model_without_a_network_says_so(monkeypatch):
    import huggingface_hub

    def fail(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ConnectionError, match="'someone/stories' here, and the Hub's .* no route"):
        load_pipeline("someone/stories")


def test_hub_model_is_loaded_from_its_snapshot(pipeline, tmp_path, monkeypatch):
    import huggingface_hub

    pipeline.save_pretrained(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    assert load_pipeline("someone/stories").name == "someone/stories"


def test_dtype_is_the_callers_choice(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path, dtype=torch.bfloat16)
    assert loaded.model.text_embedding.weight.dtype == torch.bfloat16
    assert loaded.image_tokenizer.dtype == torch.float32


def test_int8_folders_draw_in_int8_on_a_cpu_unless_told_otherwise(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "int8", precision="int8")
    pipeline.save_pretrained(tmp_path / "float32")
    loaded = load_pipeline(tmp_path / "int8", device="cpu")
    assert loaded.precision == ("int8" if has_int8_kernel() else "float32")
    story = generate_story(loaded, "mia", num_images=1, max_text_tokens=2, seed=0)
    assert story.settings["precision"] == loaded.precision
    exact = load_pipeline(tmp_path / "int8", device="cpu", dtype=torch.float32)
    assert exact.precision == "float32"
    assert load_pipeline(tmp_path / "float32", device="cpu").precision == "float32"
    half = load_pipeline(tmp_path / "int8", device="cpu", dtype=torch.bfloat16)
    assert half.precision == "bfloat16"
    # What computes in int8 is saved as what it was loaded from.
    loaded.save_pretrained(tmp_path / "again", precision="int8")
    first, again = (tmp_path / x / "model.safetensors" for x in ("int8", "again"))
    assert first.read_bytes() == again.read_bytes()
