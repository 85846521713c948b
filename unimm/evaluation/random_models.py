"""Models of published sizes with random weights: speed does not depend on what was learned.

The trunk is ours throughout (SwiGLU, QK-norm, no AdaLN in its layers), in the width, depth,
codebook and code grid of the paper; so is the image tokenizer, in the channels of its decoder.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from unimm.model import ModelConfig, UniMM
from unimm.nn.denoiser import DenoiserConfig
from unimm.nn.sampling import SamplingConfig
from unimm.nn.transformer import BackboneConfig
from unimm.objectives import DiffusionConfig, NextScaleConfig, NextTokenConfig
from unimm.objectives.base import ImageSpec, ObjectiveConfig
from unimm.pipeline import SHIPPED, Pipeline
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.quantizer import QuantizerConfig
from unimm.tokenizer.text import TextTokenizer

_MAX_SEQ_LEN = 8192
_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class RandomModel:
    """Sizes of a model, and how its paper samples.

    Attributes:
        dim: width of the trunk.
        depth: its layers.
        num_heads: its heads.
        ffn_dim: inner width of its SwiGLU.
        objective: how it draws.
        codebook_size: of the image tokenizer.
        latent_dim: its channels.
        grid_size: side of its code grid.
        widths: channels of its decoder, fine to coarse, a level each.
        sampling: of the paper's script.
    """

    dim: int
    depth: int
    num_heads: int
    ffn_dim: int
    objective: ObjectiveConfig
    codebook_size: int = 16384
    latent_dim: int = 8
    grid_size: int = 16
    widths: tuple[int, ...] = (128, 128, 256, 256, 512)
    sampling: SamplingConfig


def _llamagen(dim: int, depth: int, num_heads: int, ffn_dim: int) -> RandomModel:
    return RandomModel(
        dim=dim,
        depth=depth,
        num_heads=num_heads,
        ffn_dim=ffn_dim,
        objective=NextTokenConfig(),
        sampling=SamplingConfig(top_k=2000, guidance_scale=4.0),
    )


def _var(depth: int, ffn_dim: int) -> RandomModel:
    return RandomModel(
        dim=64 * depth,
        depth=depth,
        num_heads=depth,
        ffn_dim=ffn_dim,
        objective=NextScaleConfig(scales=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16)),
        codebook_size=4096,
        latent_dim=32,
        widths=(160, 160, 320, 320, 640),
        sampling=SamplingConfig(top_k=900, top_p=0.95, guidance_scale=4.0),
    )


SIZES: Mapping[str, RandomModel] = {
    # Seconds on any machine, to try a benchmark out.
    "nano": RandomModel(
        dim=32,
        depth=2,
        num_heads=2,
        ffn_dim=64,
        objective=NextTokenConfig(),
        codebook_size=64,
        grid_size=4,
        widths=(16, 16),
        sampling=SamplingConfig(top_k=20, guidance_scale=4.0),
    ),
    # LlamaGen GPT-B, -L, -XL (Sun et al., 2024).
    "111M": _llamagen(768, 12, 12, 2048),
    "343M": _llamagen(1024, 24, 16, 2816),
    "775M": _llamagen(1280, 36, 20, 3584),
    # VAR (Tian et al., 2024): as wide and deep; a layer has SwiGLU's three matrices for GELU's two.
    "var-d16": _var(16, 2816),
    "var-d24": _var(24, 4096),
    "var-d30": _var(30, 5120),
    # MAR-B (Li et al., 2024): its per-token head at 100 steps behind as many layers as it has.
    "mar-b": RandomModel(
        dim=768,
        depth=24,
        num_heads=12,
        ffn_dim=2048,
        objective=DiffusionConfig(
            denoiser=DenoiserConfig(
                dim=1024, depth=6, num_heads=16, mlp_ratio=1.0, conditioning="per_token"
            ),
            solver="ddim",
        ),
        latent_dim=16,
        sampling=SamplingConfig(guidance_scale=2.9, num_steps=100),
    ),
    # DiT-XL/2 (Peebles and Xie, 2023) as the head of a small trunk, at 50 steps.
    "dit-xl/2": RandomModel(
        dim=768,
        depth=12,
        num_heads=12,
        ffn_dim=2048,
        objective=DiffusionConfig(
            denoiser=DenoiserConfig(dim=1152, depth=28, num_heads=16, patch_size=2), solver="ddim"
        ),
        latent_dim=4,
        grid_size=32,
        widths=(128, 256, 512, 512),
        sampling=SamplingConfig(guidance_scale=4.0, num_steps=50),
    ),
}


def random_pipeline(
    size: str | RandomModel, *, device: torch.device, dtype: torch.dtype | None = None
) -> Pipeline:
    """Build a model of a published size.

    Args:
        size: one of ``SIZES``, or sizes of the caller's.
        device: to build it on.
        dtype: of the model's weights, by default as in ``load_pipeline``.

    Raises:
        ValueError: on an unknown size.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"unknown size {size!r}; known: {', '.join(SIZES)}")
    sizes = SIZES[size] if isinstance(size, str) else size
    text = TextTokenizer.load(SHIPPED / "storyworld")
    config = ModelConfig(
        backbone=BackboneConfig(
            dim=sizes.dim,
            depth=sizes.depth,
            num_heads=sizes.num_heads,
            num_kv_heads=sizes.num_heads,
            ffn_dim=sizes.ffn_dim,
            max_seq_len=_MAX_SEQ_LEN,
        ),
        objectives=(sizes.objective,),
    )
    spec = ImageSpec(
        codebook_size=sizes.codebook_size,
        latent_dim=sizes.latent_dim,
        grid_size=sizes.grid_size,
    )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        image = _random_tokenizer(sizes)
        model = UniMM(config, special=text.special_ids, spec=spec)
        for module in (model, image):
            _fill(module)
    model.bind(image)
    pipeline = Pipeline(
        model=model.eval().requires_grad_(False),
        text_tokenizer=text,
        image_tokenizer=image.eval().requires_grad_(False),
        name=f"{size if isinstance(size, str) else 'model'}, random weights",
    )
    return pipeline.to(device, dtype)


def _random_tokenizer(sizes: RandomModel) -> ImageTokenizer:
    blocks = [2] * len(sizes.widths)  # taming-transformers' way, which all of these papers took
    decoder_blocks = [3] * (len(sizes.widths) - 1) + [5]  # two of them round the attention
    schedule = sizes.objective.schedule
    return ImageTokenizer(
        ImageTokenizerConfig(
            autoencoder=AutoencoderConfig(
                widths=sizes.widths,
                encoder_blocks=tuple(blocks),
                decoder_blocks=tuple(decoder_blocks),
                patch_size=1,
            ),
            quantizer=QuantizerConfig(codebook_size=sizes.codebook_size, dim=sizes.latent_dim),
            image_size=sizes.grid_size * 2 ** (len(sizes.widths) - 1),
            schedules=tuple(dict.fromkeys(("single", schedule))),
        )
    )


def _fill(module: nn.Module) -> None:
    """Nothing shall be timed on zeros, which training begins some matrices with."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.normal_(std=_STD)
