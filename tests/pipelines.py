"""A tiny pipeline with real parts: byte-level text, 16-pixel pictures of 4x4 codes."""

import torch
from helpers import BACKBONE

from unimm.model import ModelConfig, UniMM
from unimm.nn.transformer import BackboneConfig
from unimm.objectives import OBJECTIVES
from unimm.objectives.base import ImageSpec
from unimm.pipeline import Pipeline
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.quantizer import QuantizerConfig
from unimm.tokenizer.text import TextTokenizer

WORDS = ("mia the fox finds a red balloon. ", "she is happy now. ")


def tiny_image_tokenizer(seed: int = 0) -> ImageTokenizer:
    """Random weights; 16x16 pixels to 4x4 codes of 24."""
    torch.manual_seed(seed)
    config = ImageTokenizerConfig(
        autoencoder=AutoencoderConfig(
            widths=(16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1), num_heads=0
        ),
        quantizer=QuantizerConfig(codebook_size=24, dim=4),
        image_size=16,
    )
    trained = ImageTokenizer(config)
    return ImageTokenizer.from_state(config, trained.to_state())


def tiny_pipeline(objective: str = "next_token", *, seed: int = 0, **backbone: object) -> Pipeline:
    """Random weights, large enough that temperature-0 text is not constant."""
    text = TextTokenizer.train(WORDS, vocab_size=280)
    image = tiny_image_tokenizer(seed)
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone=BackboneConfig(**(vars(BACKBONE) | backbone)),  # pyright: ignore
        objectives=(OBJECTIVES[objective](),),
    )
    spec = ImageSpec(codebook_size=24, latent_dim=4, grid_size=4)
    model = UniMM(config, special=text.special_ids, spec=spec).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.mul_(4)
    return Pipeline(model=model, text_tokenizer=text, image_tokenizer=image, name="tiny")
