"""Small real parts for the tests: a dim-32 model, its special ids, random documents."""

from typing import Any

import torch

from unimm.document import Batch, Document, ImageTokens, Part, SpecialIds, layout_document, pack
from unimm.model import ModelConfig, UniMM
from unimm.nn.denoiser import DenoiserConfig
from unimm.nn.transformer import BackboneConfig
from unimm.objectives import OBJECTIVES
from unimm.objectives.base import ImageSpec, ObjectiveConfig
from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.image_state import image_tokenizer_of, image_tokenizer_state
from unimm.tokenizer.quantizer import QuantizerConfig

SPECIAL = SpecialIds(pad=0, bos=1, eos=2, boi=3, eoi=4, null=5, vocab_size=40)
SPEC = ImageSpec(codebook_size=24, latent_dim=4, grid_size=4)
BACKBONE = BackboneConfig(dim=32, depth=2, num_heads=4, num_kv_heads=2, ffn_dim=48)

# What an objective's defaults are too large for.
SCALES = (1, 2, 4)
TINY: dict[str, dict[str, Any]] = {
    "next_scale": {"scales": SCALES},
    "diffusion": {"denoiser": DenoiserConfig(dim=32, depth=2, num_heads=2)},
}
TOKENIZER = ImageTokenizerConfig(
    autoencoder=AutoencoderConfig(
        widths=(16, 16), encoder_blocks=(1, 1), decoder_blocks=(1, 1), num_heads=0
    ),
    quantizer=QuantizerConfig(codebook_size=SPEC.codebook_size, dim=SPEC.latent_dim),
    image_size=16,
    schedules=("single", "1-2-4"),
)


def tiny_objective(name: str) -> ObjectiveConfig:
    """Configuration of an objective, for the tiny model."""
    return OBJECTIVES[name](**TINY.get(name, {}))


def tiny_model(objective: str = "next_token", *, seed: int = 0, **backbone: object) -> UniMM:
    """A model of about 30k parameters that draws 4x4 pictures by one objective."""
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone=BackboneConfig(**(vars(BACKBONE) | backbone)),  # pyright: ignore
        objectives=(tiny_objective(objective),),
    )
    model = UniMM(config, special=SPECIAL, spec=SPEC)
    model.bind(tiny_image_tokenizer())
    return model


def tiny_image_tokenizer(seed: int = 0) -> ImageTokenizer:
    """Random weights; 16x16 pixels to 4x4 codes of 24, or to a pyramid of them."""
    torch.manual_seed(seed)
    return image_tokenizer_of(TOKENIZER, image_tokenizer_state(ImageTokenizer(TOKENIZER)))


def random_image(generator: torch.Generator, side: int = SPEC.grid_size) -> ImageTokens:
    """Random codes, of all schedules, and latents of one picture."""
    return ImageTokens(
        codes=torch.randint(SPEC.codebook_size, (side, side), generator=generator),
        scale_codes=tuple(
            torch.randint(SPEC.codebook_size, (n, n), generator=generator) for n in SCALES
        ),
        latents=torch.randn(SPEC.latent_dim, side, side, generator=generator),
    )


def random_text(generator: torch.Generator, length: int) -> torch.Tensor:
    """Random ids that are not special."""
    return torch.randint(6, SPECIAL.vocab_size, (length,), generator=generator)


def random_story(seed: int, *, num_pages: int = 2, index: int = 0) -> Document:
    """A document of random pages: text, drawn picture, text, drawn picture ..."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Part] = []
    for page in range(num_pages):
        parts.append(Part(text_ids=random_text(generator, 3 + page)))
        parts.append(Part(tokens=random_image(generator)))
    return Document(parts=tuple(parts), index=index)


def packed(config: ObjectiveConfig, rows: list[list[Document]], row_length: int = 128):
    """Lay documents out and pack them."""
    layouts = [[layout_document(d, config, SPECIAL) for d in row] for row in rows]
    return pack(layouts, row_length=row_length, heads=(config.name,))


def batch_leaves(batch: Batch) -> dict[str, object]:
    """Every value of a batch by name."""
    found = {k: v for k, v in vars(batch).items() if k != "slots"}
    for head, slots in batch.slots.items():
        tokens = slots.tokens or ImageTokens()
        found |= {f"{head}.index": slots.index, f"{head}.image_ids": slots.image_ids}
        found |= {f"{head}.seeds": slots.seeds, f"{head}.codes": tokens.codes}
        found |= {f"{head}.{k}": codes for k, codes in enumerate(tokens.scale_codes)}
        found[f"{head}.latents"] = tokens.latents
    return found


def assert_same_batch(a: Batch, b: Batch) -> None:
    """Fail where any tensor of two batches on the host differs in a bit."""
    left, right = batch_leaves(a), batch_leaves(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        other = right[name]
        if isinstance(value, torch.Tensor):
            assert isinstance(other, torch.Tensor) and value.dtype == other.dtype, name
            assert torch.equal(value, other), name
        else:
            assert value == other, name
