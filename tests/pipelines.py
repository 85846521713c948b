"""A tiny pipeline with real parts: byte-level text, 16-pixel pictures of 4x4 codes."""

import torch
from helpers import BACKBONE, SPEC, tiny_image_tokenizer, tiny_objective

from unimm.model import ModelConfig, UniMM
from unimm.nn.transformer import BackboneConfig
from unimm.pipeline import Pipeline
from unimm.tokenizer.text import TextTokenizer

WORDS = ("mia the fox finds a red balloon. ", "she is happy now. ")


def tiny_pipeline(*objectives: str, seed: int = 0, **backbone: object) -> Pipeline:
    """Random weights, large enough that temperature-0 text is not constant.

    Args:
        objectives: names; by default next_token alone.
        seed: of the weights.
        backbone: what differs in the trunk.
    """
    text = TextTokenizer.train(WORDS, vocab_size=280)
    image = tiny_image_tokenizer(seed)
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone=BackboneConfig(**(vars(BACKBONE) | backbone)),  # pyright: ignore
        objectives=tuple(map(tiny_objective, objectives or ("next_token",))),
    )
    model = UniMM(config, special=text.special_ids, spec=SPEC).eval().requires_grad_(False)
    model.bind(image)
    for parameter in model.parameters():
        if not parameter.any():  # what starts as zero would hide all that lies before it
            parameter.normal_(std=0.1)
        if parameter.ndim > 1:
            parameter.mul_(4)
    return Pipeline(model=model, text_tokenizer=text, image_tokenizer=image, name="tiny")
