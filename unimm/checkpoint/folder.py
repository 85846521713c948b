"""The model folder: weights, architecture, both tokenizers, and hashes that tie them together.

    config.json            the manifest: architecture, hashes, special ids, sampler defaults
    model.safetensors      weights, in shards with an index when large
    tokenizer.json         the text tokenizer
    image_tokenizer/       config.json, model.safetensors
    README.md              model card

A folder whose parts do not belong together is refused: a wrong tokenizer makes garbage of every
picture, and nothing else would say so.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from unimm.checkpoint.card import CARD_FILE, model_card
from unimm.checkpoint.weights import (
    Precision,
    check_tensors,
    read_json,
    read_weights,
    restore,
    store,
    write_weights,
)
from unimm.config import config_from_dict, config_to_dict
from unimm.document import SpecialIds
from unimm.model import ModelConfig, UniMM
from unimm.nn.sampling import SamplingConfig
from unimm.objectives import OBJECTIVES
from unimm.objectives.base import ImageSpec, ObjectiveConfig
from unimm.tokenizer.image import ImageTokenizer, ImageTokenizerConfig
from unimm.tokenizer.image_state import image_tokenizer_of, image_tokenizer_state
from unimm.tokenizer.text import TextTokenizer

CONFIG_FILE = "config.json"
IMAGE_FOLDER = "image_tokenizer"
FORMAT_VERSION = 1
_CHOICES = {ObjectiveConfig: OBJECTIVES}
TIED = "text_head.weight"
# Rounding anything else would change which code a vector gets, or how latents are scaled.
_ROUNDED = ("encoder.", "decoder.")


@dataclass(frozen=True, kw_only=True)
class SamplerDefaults:
    """How a model draws when the caller does not say.

    Attributes:
        text: of the text; never guided.
        first_page: of the first picture of a document, and of single pictures.
        later_pages: of pictures that follow another.
    """

    text: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.9, top_p=0.95)
    )
    first_page: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.9, top_k=100, guidance_scale=2.0)
    )
    later_pages: SamplingConfig = field(
        default_factory=lambda: SamplingConfig(temperature=0.9, top_k=100, guidance_scale=2.0)
    )

    @staticmethod
    def of(objective: ObjectiveConfig) -> "SamplerDefaults":
        """What suits the objective that a model draws by."""
        pages = objective.default_sampling
        if pages is None:
            return SamplerDefaults()
        return SamplerDefaults(first_page=pages[0], later_pages=pages[1])


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What ``config.json`` says.

    Attributes:
        model_type: ``unimm``; tools of the Hub read it.
        format_version: of the folder.
        model: architecture, rope base included.
        spec: sizes of the image tokenizer.
        special: special ids and size of the text vocabulary.
        text_tokenizer_hash: content hash of ``tokenizer.json``.
        image_tokenizer_hash: hash of the image tokenizer's configuration and values.
        image_tokenizer: its folder, seen from this one; another model's where both share it.
        schedules: code layouts that the image tokenizer gives.
        precision: in which the matrices are kept; they are loaded as float32.
        sampler: defaults of generation.
        metadata: whatever the training wants to record: steps, data, scores.
    """

    model_type: str = "unimm"
    format_version: int = FORMAT_VERSION
    model: ModelConfig
    spec: ImageSpec
    special: SpecialIds
    text_tokenizer_hash: str
    image_tokenizer_hash: str
    image_tokenizer: str = IMAGE_FOLDER
    schedules: tuple[str, ...]
    precision: str
    sampler: SamplerDefaults = field(default_factory=SamplerDefaults)
    metadata: dict[str, Any] = field(default_factory=dict)


class LoadedModel(NamedTuple):
    """What a model folder holds; the modules are in evaluation mode, float32, on the CPU."""

    model: UniMM
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    manifest: Manifest


def image_tokenizer_hash(tokenizer: ImageTokenizer) -> str:
    """SHA-256 of an image tokenizer's configuration and float32 values.

    It names the tokenizer as it computes, so it does not depend on how the folder keeps it.
    """
    digest = hashlib.sha256(json.dumps(config_to_dict(tokenizer.config), sort_keys=True).encode())
    for name, tensor in sorted(image_tokenizer_state(tokenizer).items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def save_model(
    folder: str | Path,
    model: UniMM,
    text_tokenizer: TextTokenizer,
    image_tokenizer: ImageTokenizer,
    *,
    precision: Precision = "float32",
    image_precision: Precision = "float32",
    sampler: SamplerDefaults | None = None,
    metadata: dict[str, Any] | None = None,
    max_shard_bytes: int | None = None,
    shared_image_tokenizer: str = "",
) -> Manifest:
    """Write a model folder.

    Args:
        folder: made if missing; a model already there is replaced.
        model: the trunk with its heads, whole on this process.
        text_tokenizer: that the model was trained with.
        image_tokenizer: that the model was trained with.
        precision: of the model's matrices; vectors stay in float32.
        image_precision: of the image tokenizer's. Rounding a tokenizer makes another one of it:
            round first and train the model with what the folder gives back.
        sampler: defaults of generation; by default what suits the objective.
        metadata: plain values to record; shown in the model card.
        max_shard_bytes: largest size of a weight file; None never splits.
        shared_image_tokenizer: folder of the same tokenizer, seen from this folder, that is used
            instead of a copy; empty writes one.

    Raises:
        ValueError: if the model was built for another tokenizer, or the shared one is another.
    """
    _check_fit(model, text_tokenizer, image_tokenizer)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if shared_image_tokenizer:
        kept = load_image_tokenizer(folder / shared_image_tokenizer)
        if image_tokenizer_hash(kept) != image_tokenizer_hash(image_tokenizer):
            raise ValueError(
                f"{folder / shared_image_tokenizer} is not the image tokenizer that this model was "
                "trained with; write a copy instead"
            )
    else:
        kept = save_image_tokenizer(
            image_tokenizer,
            folder / IMAGE_FOLDER,
            precision=image_precision,
            max_shard_bytes=max_shard_bytes,
        )
    text_tokenizer.save(folder)
    state = {name: t for name, t in model.state_dict().items() if not _is_tied(model, name)}
    write_weights(folder, store(state, precision), max_shard_bytes=max_shard_bytes)
    manifest = Manifest(
        model=model.config,
        spec=model.spec,
        special=model.special,
        text_tokenizer_hash=text_tokenizer.content_hash,
        image_tokenizer_hash=image_tokenizer_hash(kept),
        image_tokenizer=shared_image_tokenizer or IMAGE_FOLDER,
        schedules=tuple(image_tokenizer.schedules),
        precision=precision,
        sampler=sampler or SamplerDefaults.of(model.config.objectives[0]),
        metadata=metadata or {},
    )
    values = config_to_dict(manifest, choices=_CHOICES)
    _write_json(folder / CONFIG_FILE, values)
    count = sum(parameter.numel() for parameter in model.parameters())
    card = model_card(folder.name, values, num_parameters=count)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return manifest


def load_model(folder: str | Path) -> LoadedModel:
    """Read a model folder.

    Raises:
        ValueError: if a file is missing or damaged, or the parts do not belong together; the
            message names both sides.
    """
    folder = Path(folder)
    values = read_json(folder / CONFIG_FILE)
    _check_format(values, folder)
    manifest = config_from_dict(
        Manifest, values, choices=_CHOICES, source=str(folder / CONFIG_FILE)
    )
    text_tokenizer = TextTokenizer.load(folder)
    image_tokenizer = load_image_tokenizer(folder / manifest.image_tokenizer)
    for what, promised, found in (
        ("text tokenizer", manifest.text_tokenizer_hash, text_tokenizer.content_hash),
        (
            "image tokenizer",
            manifest.image_tokenizer_hash,
            image_tokenizer_hash(image_tokenizer),
        ),
    ):
        if promised != found:
            raise ValueError(
                f"{folder}: the model was trained with {what} {promised}, but the folder holds "
                f"{found}: put the {what} of its training back"
            )
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, then replaced
        model = UniMM(manifest.model, special=manifest.special, spec=manifest.spec)
    _check_fit(model, text_tokenizer, image_tokenizer)
    wanted = {name: t for name, t in model.state_dict().items() if not _is_tied(model, name)}
    state = restore(read_weights(folder))
    check_tensors(wanted, state, str(folder))
    model.load_state_dict(state, strict=False)
    model.bind(image_tokenizer)
    return LoadedModel(
        model.eval().requires_grad_(False), text_tokenizer, image_tokenizer, manifest
    )


def load_image_tokenizer(folder: str | Path) -> ImageTokenizer:
    """Read an image tokenizer's folder of any precision: float32, on the CPU, for use.

    Raises:
        ValueError: if a file is missing or damaged, or configuration and weights differ.
    """
    folder = Path(folder)
    values = read_json(folder / CONFIG_FILE)
    config = config_from_dict(ImageTokenizerConfig, values, source=str(folder / CONFIG_FILE))
    with torch.random.fork_rng(devices=[]):
        return image_tokenizer_of(config, restore(read_weights(folder)))


def save_image_tokenizer(
    tokenizer: ImageTokenizer,
    folder: str | Path,
    *,
    precision: Precision = "float32",
    max_shard_bytes: int | None = None,
) -> ImageTokenizer:
    """Write a tokenizer's folder; give it back as it will be loaded.

    Args:
        tokenizer: what to write; what only training needs is left out.
        folder: made if missing.
        precision: of encoder and decoder. Vectors, codebooks and statistics stay in float32.
        max_shard_bytes: largest size of a weight file; None never splits.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = image_tokenizer_state(tokenizer)
    exact = tuple(name for name in state if not name.startswith(_ROUNDED))
    write_weights(folder, store(state, precision, exact=exact), max_shard_bytes=max_shard_bytes)
    _write_json(folder / CONFIG_FILE, config_to_dict(tokenizer.config))
    return load_image_tokenizer(folder)


def _is_tied(model: UniMM, name: str) -> bool:
    return model.config.is_tied and name == TIED


def _write_json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_format(values: dict[str, Any], folder: Path) -> None:
    kind, version = values.get("model_type"), values.get("format_version")
    if kind != "unimm":
        raise ValueError(
            f"{folder} holds a model of type {kind!r}, not 'unimm'; a language model can start a "
            "trunk through checkpoint.load_llm_backbone"
        )
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {version!r}, this release reads {FORMAT_VERSION}: "
            "install the release that wrote it"
        )


def _check_fit(model: UniMM, text: TextTokenizer, image: ImageTokenizer) -> None:
    """Refuse tokenizers whose sizes or ids the model was not built for."""
    pairs: tuple[tuple[str, Any, Any], ...] = (
        ("special ids", model.special, text.special_ids),
        ("codebook size", model.spec.codebook_size, image.codebook_size),
        ("latent channels", model.spec.latent_dim, image.latent_dim),
    )
    for what, wanted, found in pairs:
        if wanted != found:
            raise ValueError(f"the model has {what} {wanted}, but its tokenizer has {found}")
