"""unimm: unified multimodal generation on one trunk."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unimm.config import load_config as load_config
    from unimm.generation.generate import generate as generate
    from unimm.generation.image import generate_image as generate_image
    from unimm.generation.story import generate_story as generate_story
    from unimm.pictures import decode_image as decode_image
    from unimm.pictures import encode_image as encode_image
    from unimm.pipeline import load_pipeline as load_pipeline
    from unimm.probes.features import extract_features as extract_features
    from unimm.probes.fit import fit_probe as fit_probe
    from unimm.training.config import TrainConfig as TrainConfig
    from unimm.training.loop import train as train

# Public name -> module; imported when first used, so that ``import unimm`` is instant.
_MODULES = {
    "load_pipeline": "unimm.pipeline",
    "encode_image": "unimm.pictures",
    "decode_image": "unimm.pictures",
    "generate": "unimm.generation.generate",
    "generate_image": "unimm.generation.image",
    "generate_story": "unimm.generation.story",
    "extract_features": "unimm.probes.features",
    "fit_probe": "unimm.probes.fit",
    "train": "unimm.training.loop",
    "TrainConfig": "unimm.training.config",
    "load_config": "unimm.config",
}
__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'unimm' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
