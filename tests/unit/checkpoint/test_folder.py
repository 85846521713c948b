import json
from dataclasses import replace

import pytest
import torch
from pipelines import tiny_image_tokenizer, tiny_pipeline

from unimm.checkpoint import SamplerDefaults, image_tokenizer_hash, load_model
from unimm.checkpoint.folder import load_image_tokenizer
from unimm.nn.sampling import SamplingConfig
from unimm.pipeline import Pipeline, load_pipeline
from unimm.tokenizer.text import TextTokenizer


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return tiny_pipeline()


def edit(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


def test_model_folder_round_trips(pipeline, tmp_path):
    sampler = SamplerDefaults(text=SamplingConfig(temperature=0.5))
    changed = replace(pipeline, sampler=sampler, metadata={"steps": 7})
    changed.save_pretrained(tmp_path)
    loaded = load_pipeline(tmp_path)
    assert loaded.model.config == pipeline.model.config
    for name, tensor in pipeline.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert loaded.sampler == sampler and loaded.metadata == {"steps": 7}
    assert loaded.model.text_head.weight is loaded.model.text_embedding.weight
    assert not loaded.model.training
    pixels = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected, found = (x.image_tokenizer.encode(pixels) for x in (pipeline, loaded))
    assert found.codes is not None and expected.codes is not None
    assert torch.equal(found.codes, expected.codes)
    card = (tmp_path / "README.md").read_text()
    assert "| steps | 7 |" in card and "next_token" in card


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_saving_what_was_loaded_writes_the_same_again(pipeline, precision, tmp_path):
    first, second = tmp_path / "a" / "model", tmp_path / "b" / "model"
    for source, folder in ((pipeline, first), (None, second)):
        folder.parent.mkdir()
        (source or load_pipeline(first)).save_pretrained(
            folder, precision=precision, image_precision=precision, max_shard_bytes=30_000
        )
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert files == sorted(p.relative_to(second) for p in second.rglob("*") if p.is_file())
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path


def test_precision_makes_the_folder_smaller(pipeline, tmp_path):
    sizes = []
    for precision in ("float32", "bfloat16", "int8"):
        pipeline.save_pretrained(tmp_path / precision, precision=precision)
        sizes.append((tmp_path / precision / "model.safetensors").stat().st_size)
    assert sizes[1] < 0.6 * sizes[0] and sizes[2] < 0.4 * sizes[0]


def test_mismatched_tokenizers_are_refused_with_both_hashes(pipeline, tmp_path):
    manifest = pipeline.save_pretrained(tmp_path / "model")
    other = replace(pipeline, image_tokenizer=tiny_image_tokenizer(seed=1))
    other.save_pretrained(tmp_path / "other")
    wrong = image_tokenizer_hash(other.image_tokenizer)
    assert wrong != manifest.image_tokenizer_hash
    for name in ("config.json", "model.safetensors"):
        source = tmp_path / "other" / "image_tokenizer" / name
        (tmp_path / "model" / "image_tokenizer" / name).write_bytes(source.read_bytes())
    with pytest.raises(
        ValueError, match=f"image tokenizer {manifest.image_tokenizer_hash}, .* {wrong}"
    ):
        load_model(tmp_path / "model")

    text = TextTokenizer.train(["other words here. ", "all other words."] * 9, vocab_size=280)
    text.save(tmp_path / "other")
    with pytest.raises(
        ValueError, match=f"text tokenizer {manifest.text_tokenizer_hash}, .*{text.content_hash}"
    ):
        load_model(tmp_path / "other")


def test_a_model_is_not_saved_with_a_tokenizer_that_does_not_fit(pipeline, tmp_path):
    larger = TextTokenizer.train(["another text of many words"], vocab_size=300)
    assert larger.vocab_size != pipeline.text_tokenizer.vocab_size
    with pytest.raises(ValueError, match="the model has special ids"):
        replace(pipeline, text_tokenizer=larger).save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 99}, "format version 99, this release reads 1"),
        ({"model_type": "llama"}, "type 'llama', not 'unimm'"),
        ({"sampelr": {}}, "unknown key 'sampelr'; did you mean 'sampler'"),
        ({"precision": 3}, "'precision' must be str"),
    ],
)
def test_bad_manifest_is_refused(pipeline, tmp_path, values, message):
    pipeline.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", **values)
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


def test_configuration_that_does_not_fit_the_weights_is_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["model"]["backbone"]["ffn_dim"] = 64
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"is \(32, 48\), .* asks for \(32, 64\)"):
        load_model(tmp_path)
    content["model"]["backbone"] |= {"ffn_dim": 48, "depth": 3}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"missing \['backbone.layers.2"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("config.json", "config.json is missing"),
        ("model.safetensors", "model.safetensors is missing"),
        ("tokenizer.json", "no text tokenizer"),
        ("image_tokenizer/config.json", "image_tokenizer/config.json is missing"),
        ("image_tokenizer/model.safetensors", "image_tokenizer/model.safetensors is missing"),
    ],
)
def test_missing_file_is_named(pipeline, tmp_path, name, message):
    pipeline.save_pretrained(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_image_tokenizer_alone_can_be_read(pipeline, tmp_path, precision):
    manifest = pipeline.save_pretrained(tmp_path, image_precision=precision)
    tokenizer = load_image_tokenizer(tmp_path / "image_tokenizer")
    assert image_tokenizer_hash(tokenizer) == manifest.image_tokenizer_hash
    expected = pipeline.image_tokenizer.codebook_vectors
    assert torch.equal(tokenizer.codebook_vectors, expected)  # never rounded


def test_loading_leaves_the_random_state_alone(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    before = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_two_models_can_share_an_image_tokenizer(tmp_path):
    first, second = tiny_pipeline("next_token"), tiny_pipeline("diffusion")
    first.save_pretrained(tmp_path / "first")
    shared = "../first/image_tokenizer"
    second.save_pretrained(tmp_path / "second", shared_image_tokenizer=shared)
    assert not (tmp_path / "second/image_tokenizer").exists()
    loaded = load_pipeline(tmp_path / "second", device="cpu")
    assert loaded.hashes == load_pipeline(tmp_path / "first", device="cpu").hashes
    other = tiny_pipeline("diffusion", seed=1)
    with pytest.raises(ValueError, match="not the image tokenizer that this model was trained"):
        other.save_pretrained(tmp_path / "third", shared_image_tokenizer=shared)
