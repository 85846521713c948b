"""The trunk against the reference models of ``transformers``, with equal weights."""

import pytest
import torch
from helpers import SPEC

from unimm.checkpoint import init_from_llm, load_llm_backbone
from unimm.document import SpecialIds
from unimm.model import ModelConfig, UniMM
from unimm.nn.attention import Visibility

VOCAB = 50
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


def reference(kind: str, **options):
    import transformers

    torch.manual_seed(0)
    names = {"llama": "Llama", "qwen3": "Qwen3", "qwen2": "Qwen2"}
    config = getattr(transformers, names[kind] + "Config")(**SIZES | options)
    model = getattr(transformers, names[kind] + "ForCausalLM")(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def start_from(folder, *, is_tied: bool, extra: int = 6) -> UniMM:
    backbone, state = load_llm_backbone(folder)
    special = SpecialIds(
        **{n: VOCAB + i for i, n in enumerate(["pad", "bos", "eos", "boi", "eoi", "null"])},
        vocab_size=VOCAB + extra,
    )
    model = UniMM(ModelConfig(backbone=backbone, is_tied=is_tied), special=special, spec=SPEC)
    init_from_llm(model, state, generator=torch.Generator().manual_seed(0))
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize(
    ("is_tied", "options"),
    [
        (True, {}),
        (False, {"head_dim": 16}),
        (False, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    ],
)
def test_logits_equal_the_reference(kind, is_tied, options, tmp_path):
    model = reference(kind, tie_word_embeddings=is_tied, **options)
    model.save_pretrained(tmp_path, max_shard_size="10KB")  # several shards
    assert (tmp_path / "model.safetensors.index.json").is_file()
    ours = start_from(tmp_path, is_tied=is_tied)
    ids = torch.randint(VOCAB, (2, 20), generator=torch.Generator().manual_seed(0))
    causal = torch.ones(20, 20, dtype=torch.bool).tril()[None, None]
    hidden = ours.backbone(
        ours.text_embedding(ids),
        torch.arange(20)[None, :, None].expand(2, -1, 3),
        Visibility(dense=causal),
    )
    expected = model(ids).logits
    torch.testing.assert_close(ours.text_head(hidden)[..., :VOCAB], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_appended_rows_are_drawn_like_the_old_ones(tmp_path):
    reference("llama", tie_word_embeddings=False).save_pretrained(tmp_path)
    model = start_from(tmp_path, is_tied=False, extra=2000)
    for table in (model.text_embedding.weight, model.text_head.weight):
        old, new = table[:VOCAB], table[VOCAB:]
        torch.testing.assert_close(new.mean(0), old.mean(0), atol=0.03, rtol=0)
        torch.testing.assert_close(new.std(0), old.std(0), atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("qwen2", {}, "Qwen2.*biases"),
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "rope_scaling 'linear'",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    ],
)
def test_other_architectures_are_refused_by_name(kind, options, message, tmp_path):
    reference(kind, **options).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_llm_backbone(tmp_path)


def test_unknown_architecture_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="'gpt2'"):
        load_llm_backbone(tmp_path)


def test_vocabulary_smaller_than_the_language_models_is_refused(tmp_path):
    reference("llama").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="fewer than the language model's 50"):
        start_from(tmp_path, is_tied=False, extra=-10)


def test_tokenizer_decides_how_many_rows_are_old(tmp_path):
    from tokenizers import Tokenizer, models

    reference("llama", tie_word_embeddings=True).save_pretrained(tmp_path)
    path = str(tmp_path / "tokenizer.json")
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(45)}, unk_token="w0")).save(path)
    _, state = load_llm_backbone(tmp_path)
    assert state["text_embedding.weight"].shape[0] == 45  # five rows only padded it
    Tokenizer(models.WordLevel({f"w{i}": i for i in range(60)}, unk_token="w0")).save(path)
    with pytest.raises(ValueError, match="60 ids, but the embedding has 50 rows"):
        load_llm_backbone(tmp_path)
