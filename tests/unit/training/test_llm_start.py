"""A run that starts from a language model's folder, at the sizes of Qwen3 made tiny."""

from dataclasses import replace

import pytest
import torch
from corpora import tiny_run

from unimm.model import ModelConfig
from unimm.nn.attention import Visibility
from unimm.nn.transformer import BackboneConfig
from unimm.tokenizer.text import TextTokenizer
from unimm.training.config import EngineConfig
from unimm.training.loop import train
from unimm.training.prepare import prepare

SIZES = BackboneConfig(
    dim=32, depth=2, num_heads=4, num_kv_heads=2, head_dim=16, ffn_dim=48, rope_base=1e6
)


@pytest.fixture
def started(tmp_path):
    """A run and the language model that it starts from."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tiny_run(tmp_path)  # writes shards and tokenizers
    torch.manual_seed(0)
    llm = Qwen3ForCausalLM(
        Qwen3Config(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=48,
            vocab_size=TextTokenizer.load(tmp_path).vocab_size,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
            tie_word_embeddings=False,
        )
    )
    llm.save_pretrained(tmp_path / "llm")
    TextTokenizer.load(tmp_path).save(tmp_path / "llm")
    config = tiny_run(
        tmp_path,
        model=ModelConfig(backbone=SIZES, is_tied=False),
        initial_llm=str(tmp_path / "llm"),
        text_tokenizer=str(tmp_path / "llm"),
        max_steps=2,
    )
    return config, llm


def test_the_trunk_starts_as_the_language_model(started):
    config, llm = started
    model = prepare(config, micro_rows=1, device=torch.device("cpu")).model
    ids = torch.randint(6, 40, (1, 12))
    positions = torch.arange(12)[None, :, None].expand(-1, -1, 3)
    causal = Visibility(dense=torch.ones(12, 12, dtype=torch.bool).tril()[None, None])
    with torch.no_grad():
        hidden = model.backbone(model.text_embedding(ids), positions, causal)
        ours, theirs = model.text_head(hidden), llm(ids).logits
    assert torch.allclose(ours[..., : theirs.shape[-1]], theirs, atol=1e-5)


def test_it_steps_in_zero_3(started):
    config, _ = started
    engine = EngineConfig(zero_stage=3, precision="bfloat16", checkpoint_activations=True)
    train(replace(config, engine=engine), draw=lambda *_: None, save=lambda *_: None)


def test_other_sizes_are_refused_by_name(started):
    config, _ = started
    model = replace(config.model, backbone=replace(SIZES, depth=3))
    with pytest.raises(ValueError, match=r"model.backbone differs .*\(depth 3, there 2\)"):
        prepare(replace(config, model=model), micro_rows=1, device=torch.device("cpu"))


def test_two_beginnings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not from both"):
        tiny_run(tmp_path, initial_llm="a", initial_model="b")
