"""The model folder: save it, load it, start from a language model's."""

from unimm.checkpoint.folder import (
    Manifest,
    SamplerDefaults,
    image_tokenizer_hash,
    load_image_tokenizer,
    load_model,
    save_image_tokenizer,
    save_model,
)
from unimm.checkpoint.llm import init_from_llm, load_llm_backbone

__all__ = [
    "Manifest",
    "SamplerDefaults",
    "image_tokenizer_hash",
    "init_from_llm",
    "load_image_tokenizer",
    "load_llm_backbone",
    "load_model",
    "save_image_tokenizer",
    "save_model",
]
