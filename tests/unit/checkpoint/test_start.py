"""A run may start from another's model; what does not belong together is refused."""

from dataclasses import replace

import pytest
import torch
from pipelines import tiny_pipeline

from unimm.checkpoint import SamplerDefaults, image_tokenizer_hash
from unimm.checkpoint.start import init_from_model
from unimm.pipeline import load_pipeline


def hashes(pipeline):
    return {
        "text_tokenizer_hash": pipeline.text_tokenizer.content_hash,
        "image_tokenizer_hash": image_tokenizer_hash(pipeline.image_tokenizer),
    }


def test_the_trunk_of_another_objective_is_taken_over(tmp_path):
    old = tiny_pipeline("next_token", seed=0)
    old.save_pretrained(tmp_path)
    new = tiny_pipeline("diffusion", seed=0)
    for parameter in new.model.parameters():
        parameter.data.add_(1.0)
    before = {name: x.clone() for name, x in new.model.state_dict().items()}
    started = init_from_model(new.model, tmp_path, **hashes(new))
    assert started.unused == ["objectives.next_token.head.weight"]
    assert started.fresh and all(x.startswith("objectives.diffusion.") for x in started.fresh)
    kept = old.model.state_dict()
    for name, tensor in new.model.state_dict().items():
        wanted = before[name] if name in started.fresh else kept[name]
        assert torch.equal(tensor, wanted), name
    assert "text_embedding.weight" in started.taken
    assert new.model.text_head.weight is new.model.text_embedding.weight


def test_another_tokenizer_or_size_is_refused(tmp_path):
    old = tiny_pipeline()
    old.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="image_tokenizer_hash .* this run other"):
        init_from_model(old.model, tmp_path, **hashes(old) | {"image_tokenizer_hash": "other"})
    wide = tiny_pipeline(dim=64, ffn_dim=96)
    with pytest.raises(ValueError, match=r"initial_model .* give both the same sizes"):
        init_from_model(wide.model, tmp_path, **hashes(old))


def test_a_model_is_saved_with_the_sampling_of_its_objective(tmp_path):
    for name in ("next_token", "diffusion"):
        pipeline = tiny_pipeline(name)
        sampler = SamplerDefaults.of(pipeline.drawing)
        replace(pipeline, sampler=sampler).save_pretrained(tmp_path / name)
        loaded = load_pipeline(tmp_path / name, device="cpu").sampler
        assert loaded == sampler
        is_code = name == "next_token"
        assert (loaded.first_page.top_k, loaded.first_page.temperature == 1) == (
            (100, False) if is_code else (0, True)
        )
        assert loaded.text.temperature == 0.9
