"""Start a trunk from a pretrained language model in the format of ``transformers``."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unimm.checkpoint.weights import check_tensors, read_json, read_weights
from unimm.model import UniMM
from unimm.nn.transformer import BackboneConfig

_EMBEDDING, _HEAD = "text_embedding.weight", "text_head.weight"
_NAMES = {
    "model.layers.": "backbone.layers.",
    "model.norm.": "backbone.norm.",
    "model.embed_tokens.weight": _EMBEDDING,
    "lm_head.weight": _HEAD,
}


def load_llm_backbone(folder: str | Path) -> tuple[BackboneConfig, dict[str, Tensor]]:
    """Read the folder of a Llama or Qwen3 model, sharded or not.

    Args:
        folder: with ``config.json`` and safetensors. With a ``tokenizer.json`` beside them, rows
            that only pad the embedding are left out, so that tokens appended to that tokenizer
            never get them.

    Returns:
        Sizes of the trunk, and its weights in float32 under our names, with ``text_embedding`` and,
        unless tied, ``text_head``.

    Raises:
        ValueError: if the architecture is another, or has parts that our trunk lacks.
    """
    folder = Path(folder)
    config = read_json(folder / "config.json")
    backbone = _backbone_config(config, str(folder))
    state: dict[str, Tensor] = {}
    for name, tensor in read_weights(folder).items():
        start = next((start for start in _NAMES if name.startswith(start)), None)
        if start is None:
            raise ValueError(f"{folder}: {name} has no place in the trunk")
        state[_NAMES[start] + name.removeprefix(start)] = tensor.float()
    if config.get("tie_word_embeddings", False):
        state.pop(_HEAD, None)
    num_rows, num_ids = state[_EMBEDDING].shape[0], _vocab_size(folder)
    if num_ids is not None and num_ids > num_rows:
        raise ValueError(
            f"{folder}: the tokenizer has {num_ids} ids, but the embedding has {num_rows} rows: "
            "they are of different models"
        )
    for name in {_EMBEDDING, _HEAD} & state.keys():
        state[name] = state[name][:num_ids]
    return backbone, state


@torch.no_grad()
def init_from_llm(model: UniMM, state: dict[str, Tensor], *, generator: torch.Generator) -> None:
    """Give a model the trunk, text embedding and text head of a language model.

    Rows of appended tokens are drawn at the old rows' mean and standard deviation, so that a new
    token is at first neither louder nor quieter than the old ones (Hewitt, 2021).

    Args:
        model: built with the backbone configuration that came with ``state``.
        state: of ``load_llm_backbone``.
        generator: on the CPU; draws the new rows.

    Raises:
        ValueError: if the vocabulary is smaller than the language model's, or sizes differ.
    """
    vocab_size = model.special.vocab_size
    num_old = state[_EMBEDDING].shape[0]
    if vocab_size < num_old:
        raise ValueError(
            f"the model has {vocab_size} text ids, fewer than the language model's {num_old}: use "
            "the language model's tokenizer (TextTokenizer.from_pretrained_file)"
        )
    if model.config.is_tied and _HEAD in state:
        raise ValueError("this language model has a head of its own: build the model untied")
    grown = dict(state)
    for name in {_EMBEDDING, _HEAD} & state.keys():
        old = state[name]
        noise = torch.randn(vocab_size - num_old, old.shape[1], generator=generator)
        grown[name] = torch.cat([old, old.mean(0) + old.std(0) * noise])
    if not model.config.is_tied and _HEAD not in grown:
        grown[_HEAD] = grown[_EMBEDDING].clone()
    own = model.state_dict()
    wanted = {name: own[name] for name in own if name.startswith(("backbone.", "text_"))}
    if model.config.is_tied:
        wanted.pop(_HEAD)
    check_tensors(wanted, grown, "language model")
    for name, tensor in grown.items():
        own[name].copy_(tensor)


def _backbone_config(config: dict[str, Any], source: str) -> BackboneConfig:
    kind = config.get("model_type")
    if kind == "qwen2":
        raise ValueError(
            f"{source} is a Qwen2 model: its query, key and value projections have biases, which "
            "the trunk lacks; use Qwen3 or Llama"
        )
    if kind not in ("llama", "qwen3"):
        raise ValueError(f"{source} is a {kind!r} model; the trunk can start from llama or qwen3")
    rope: dict[str, Any] = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or {}
    rope_kind = rope.get("rope_type") or scaling.get("rope_type") or scaling.get("type")
    refused = {
        "attention_bias": config.get("attention_bias", False),
        "mlp_bias": config.get("mlp_bias", False),
        "use_sliding_window": config.get("use_sliding_window", False),
        "rope_scaling": rope_kind if rope_kind not in (None, "default") else False,
        "hidden_act": config["hidden_act"] if config.get("hidden_act", "silu") != "silu" else False,
    }
    for name, value in refused.items():
        if value:
            raise ValueError(f"{source} has {name} {value!r}, which the trunk lacks")
    heads = config["num_attention_heads"]
    return BackboneConfig(
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        ffn_dim=config["intermediate_size"],
        rope_base=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        use_qk_norm=kind == "qwen3",
        max_seq_len=config.get("max_position_embeddings", 4096),
    )


def _vocab_size(folder: Path) -> int | None:
    """Ids of the language model's own tokenizer, or None without one."""
    if not (folder / "tokenizer.json").is_file():
        return None
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
