"""Builds a run's model: drawn or loaded once for all ranks, parts of it frozen."""

import logging
from dataclasses import asdict
from difflib import get_close_matches

import torch

from unimm.checkpoint.llm import init_from_llm, load_llm_backbone
from unimm.checkpoint.start import init_from_model
from unimm.distributed import is_main
from unimm.document import SpecialIds
from unimm.model import ModelConfig, UniMM
from unimm.objectives.base import ImageSpec
from unimm.training.config import TrainConfig

logger = logging.getLogger(__name__)


def first_model(
    config: TrainConfig, *, special: SpecialIds, spec: ImageSpec, tokenizer_hashes: tuple[str, str]
) -> UniMM:
    """Draw the model, or start from another one, on the first rank; the engine sends it on.

    A model drawn or read by every process would take as much memory and as many reads as there are
    processes; on the others the weights take no memory until they arrive.

    Args:
        config: the run.
        special: ids of the text tokenizer.
        spec: sizes of the image tokenizer.
        tokenizer_hashes: of the text and of the image tokenizer.
    """
    if is_main():
        model = UniMM(config.model, special=special, spec=spec)
        if config.initial_model:
            _start_from(model, config.initial_model, tokenizer_hashes)
        if config.initial_llm:
            _start_from_llm(model, config)
    else:
        model = empty_model(config.model, special=special, spec=spec)
    freeze(model, config.optimizer.frozen)
    return model


def empty_model(config: ModelConfig, *, special: SpecialIds, spec: ImageSpec) -> UniMM:
    """A model on the CPU whose weights are not set, and take no memory until they are."""
    with torch.device("meta"):
        model = UniMM(config, special=special, spec=spec)
    model.to_empty(device="cpu")
    model.tie_weights()
    return model


def freeze(model: UniMM, prefixes: tuple[str, ...]) -> None:
    """Leave parts of a model as they are.

    Args:
        model: with all parameters.
        prefixes: beginnings of parameter names, up to a dot.

    Raises:
        ValueError: one of them names nothing, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for prefix in prefixes:
        found = [name for name in names if f"{name}.".startswith(f"{prefix}.")]
        if not found:
            parts = {name.rsplit(".", n)[0] for name in names for n in range(name.count(".") + 1)}
            near = get_close_matches(prefix, sorted(parts), n=3) or sorted(
                {name.split(".")[0] for name in names}
            )
            raise ValueError(
                f"optimizer.frozen: the model has no parameters {prefix!r}; near: {', '.join(near)}"
            )
        for name in found:
            model.get_parameter(name).requires_grad_(False)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(f"optimizer.frozen {', '.join(prefixes)} leaves nothing to train")


def _start_from(model: UniMM, folder: str, hashes: tuple[str, str]) -> None:
    started = init_from_model(
        model, folder, text_tokenizer_hash=hashes[0], image_tokenizer_hash=hashes[1]
    )
    logger.info(
        "%d weights from %s; drawn afresh: %s; unused: %s",
        len(started.taken),
        folder,
        ", ".join(started.fresh) or "none",
        ", ".join(started.unused) or "none",
    )


def _start_from_llm(model: UniMM, config: TrainConfig) -> None:
    """Give the trunk a language model's weights, if the run's sizes are its own."""
    found, state = load_llm_backbone(config.initial_llm)
    own = asdict(config.model.backbone) | {"head_dim": config.model.backbone.head_width}
    differing = [
        f"{name} {own[name]}, there {value}"
        for name, value in asdict(found).items()
        if own[name] != value and name != "max_seq_len"
    ]
    if differing:
        raise ValueError(
            f"model.backbone differs from initial_llm {config.initial_llm} "
            f"({'; '.join(differing)}): give it the same sizes"
        )
    init_from_llm(model, state, generator=torch.Generator().manual_seed(config.seed))
