"""The one seam: pictures in, features of a frozen model out.

Every probe sees a model through ``extract_features`` or, for several layers of one forward,
``feature_maps``. Legend: ``B`` pictures, ``H W`` their size, ``D h w`` features.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unimm.objectives.base import Objective
from unimm.pipeline import Pipeline, load_pipeline
from unimm.probes.diffusers_folder import is_diffusers_folder, load_diffusers_folder
from unimm.probes.sources import DENOISING, first_objective, pipeline_features
from unimm.probes.spec import FeatureModel, FeatureSpec, half_precision, resolve_layers
from unimm.tokenizer.pixels import check_pixels

__all__ = ["FeatureModel", "FeatureSpec", "extract_features", "feature_maps", "load_feature_model"]


def load_feature_model(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    objective: str = "",
    kinds: tuple[type[Objective[Any]], ...] = DENOISING,
) -> FeatureModel:
    """Load what is to be probed: a shipped model, a model folder, or a ``diffusers`` folder.

    Args:
        name: of it.
        device: where it runs; by default the GPU where there is one.
        objective: which of a model's objectives is looked at; by default the first of ``kinds``, or
            else the first.
        kinds: of objectives, by default those that denoise.

    Raises:
        ValueError: if there is no such model or objective.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if is_diffusers_folder(name):
        return load_diffusers_folder(Path(name), device=target)
    pipeline = load_pipeline(name, device=target, dtype=torch.float32)
    return pipeline_features(pipeline.draw_by(objective or first_objective(pipeline, kinds)))


def extract_features(
    pipeline: Pipeline | FeatureModel, pixels: Tensor, spec: FeatureSpec | None = None
) -> Tensor:
    """Features of pictures.

    Args:
        pipeline: of ``load_pipeline``, or a ``FeatureModel`` of ``load_feature_model``.
        pixels: ``(B, 3, H, W)`` float in [-1, 1]; resized to what the model reads.
        spec: which; by default the denoiser's last layer at a tenth of noise.

    Returns:
        ``(B, D, h, w)`` float32; ``(B, D, 1, 1)`` if pooled.

    Raises:
        ValueError: if the model has no such source or layer, or these are no pictures.
    """
    spec = spec or FeatureSpec()
    return feature_maps(pipeline, pixels, spec, (spec.layer,))[0]


@torch.no_grad()
def feature_maps(
    model: Pipeline | FeatureModel, pixels: Tensor, spec: FeatureSpec, layers: Sequence[int]
) -> tuple[Tensor, ...]:
    """As ``extract_features``, for several layers of one forward (``spec.layer`` is not read)."""
    if isinstance(model, Pipeline):
        model = pipeline_features(model)
    source = model.source(spec.source)
    numbers = resolve_layers(source, layers)
    check_pixels(pixels)
    pixels = fit(pixels.to(model.device), model.image_size)
    count = spec.num_noises if source.is_noisy else 1
    shown = source.prepare(pixels)
    total: list[Tensor] = []
    for k in range(count):
        with half_precision(model.device):
            maps = source(shown, replace(spec, noise_seed=spec.noise_seed + k), numbers)
        total = (
            [x.float() for x in maps]
            if k == 0
            else [a + b for a, b in zip(total, maps, strict=True)]
        )
    maps = [x / count for x in total]
    return tuple(x.mean((2, 3), keepdim=True) if spec.pool == "mean" else x for x in maps)


@torch.no_grad()
def prepare_all(
    model: FeatureModel, source: str, pixels: Tensor, *, batch_size: int = 256
) -> Tensor:
    """What a source is shown of a whole set ``(N, 3, H, W)`` uint8, on the model's device."""
    chunks = (x.to(model.device).float() / 127.5 - 1 for x in pixels.split(batch_size))
    return torch.cat([model.source(source).prepare(fit(x, model.image_size)) for x in chunks])


def fit(pixels: Tensor, size: int) -> Tensor:
    """Resize ``(B, 3, H, W)`` to squares of ``size``, with antialiasing."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    resized = functional.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)
    return resized.clamp(-1, 1)
