"""What of our own models can be probed: denoiser, trunk, image tokenizer, and raw pixels.

Legend: ``B`` pictures, ``n`` patches, ``D`` width, ``C h w`` latents.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unimm.diffusion.path import add_noise
from unimm.document import NO_CODE, ImageTokens
from unimm.model import UniMM
from unimm.objectives.base import Objective
from unimm.objectives.diffusion import Diffusion, NoisyDraw
from unimm.objectives.transfusion import Transfusion
from unimm.pipeline import Pipeline
from unimm.probes.documents import (
    lay_out,
    lay_out_given,
    outputs_of,
    run_rows,
)
from unimm.probes.pixel_source import PixelSource
from unimm.probes.spec import FeatureModel, FeatureSpec, Source, shared_noise
from unimm.tokenizer.autoencoder import ResidualBlock
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.image_state import image_tokenizer_of, image_tokenizer_state

DENOISING: tuple[type[Objective[Any]], ...] = (Diffusion, Transfusion)


def pipeline_features(pipeline: Pipeline) -> FeatureModel:
    """One of our models as probes see it."""
    objective = pipeline.model.objective(pipeline.drawing.name)
    sources: dict[str, Source] = {}
    if isinstance(objective, Diffusion):
        sources["denoiser"] = HeadSource(pipeline, objective)
    elif isinstance(objective, Transfusion):
        sources["denoiser"] = NoisyTrunkSource(pipeline, objective)
    sources["trunk"] = TrunkSource(pipeline)
    sources["encoder"] = EncoderSource(pipeline.image_tokenizer)
    sources["pixels"] = PixelSource()
    return FeatureModel(
        name=pipeline.name,
        device=pipeline.device,
        image_size=pipeline.image_size,
        sources=sources,
        randomise=lambda source, seed: pipeline_features(_randomised(pipeline, source, seed)),
        pipeline=pipeline,
    )


def first_objective(pipeline: Pipeline, kinds: tuple[type[Objective[Any]], ...]) -> str | None:
    """Name of the first of a model's objectives that is of one of these kinds."""
    for config in pipeline.model.config.objectives:
        if isinstance(pipeline.model.objective(config.name), kinds):
            return config.name
    return None


class HeadSource:
    """A denoiser head, told what the trunk says of the condition."""

    is_noisy = True

    def __init__(self, pipeline: Pipeline, objective: Diffusion) -> None:
        self.pipeline, self.objective = pipeline, objective
        self.network: nn.Module = objective.denoiser
        self.num_layers = objective.config.denoiser.depth
        self._told: dict[str, Tensor] = {}  # condition -> (1, n, D); the trunk stays as it is

    @torch.no_grad()
    def prepare(self, pixels: Tensor) -> Tensor:
        """Standardised latents."""
        return self.objective.space.standardise(latents_of_pixels(self.pipeline, pixels))

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Features after denoiser blocks."""
        if spec.condition not in self._told:
            told = tell(self.pipeline, self.objective, [spec.condition])
            self._told[spec.condition] = told
        told = self._told[spec.condition].expand(len(shown), -1, -1)
        noise = shared_noise(shown.shape[1:], spec.noise_seed, shown.device)
        t = torch.full((len(shown),), spec.timestep, device=shown.device)
        found = self.objective.denoiser(add_noise(shown, noise, t), t, told, layers=layers)
        return found.features


class NoisyTrunkSource:
    """A trunk that denoises by itself: its hidden states over the noisy patches."""

    is_noisy = True

    def __init__(self, pipeline: Pipeline, objective: Transfusion) -> None:
        self.pipeline, self.objective = pipeline, objective
        self.network: nn.Module = pipeline.model.backbone
        self.num_layers = pipeline.model.config.backbone.depth

    def prepare(self, pixels: Tensor) -> Tensor:
        """Nothing is done."""
        return pixels

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Hidden states after layers of the trunk."""
        tokens = self.pipeline.image_tokenizer.encode(shown)
        assert tokens.latents is not None
        count, shape = len(shown), tokens.latents.shape[1:]
        noise = shared_noise(shape, spec.noise_seed, shown.device)
        t = torch.full((count, 1), spec.timestep, device=shown.device)
        draw = NoisyDraw(tokens=tokens, times=t, noise=noise[None].expand(count, 1, *shape))
        batch = lay_out(self.pipeline, [spec.condition] * count, tokens)
        with outputs_of(list(self.pipeline.model.backbone.layers), layers) as found:
            run_rows(self.pipeline, batch, draw)
        index = batch.slots[self.pipeline.drawing.name].index
        return tuple(_grid(torch.add(*found[i]).flatten(0, 1)[index], count) for i in layers)


class TrunkSource:
    """The trunk over a given picture's codes, under any objective."""

    is_noisy = False

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.network: nn.Module = pipeline.model.backbone
        self.num_layers = pipeline.model.config.backbone.depth

    def prepare(self, pixels: Tensor) -> Tensor:
        """Nothing is done."""
        return pixels

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Hidden states after layers of the trunk."""
        tokens = self.pipeline.image_tokenizer.encode(shown, self.pipeline.schedule)
        batch = lay_out_given(self.pipeline, tokens, spec.condition)
        with outputs_of(list(self.pipeline.model.backbone.layers), layers) as found:
            run_rows(self.pipeline, batch)
        is_code = batch.code_ids != NO_CODE
        return tuple(_grid(torch.add(*found[i])[is_code], len(shown)) for i in layers)


class EncoderSource:
    """The image tokenizer's encoder: its residual blocks, and at the end the latents."""

    is_noisy = False

    def __init__(self, tokenizer: ImageTokenizer) -> None:
        self.tokenizer = tokenizer
        self.network: nn.Module = tokenizer.encoder
        self._blocks = [x for x in tokenizer.encoder.layers if isinstance(x, ResidualBlock)]
        self.num_layers = len(self._blocks) + 1

    def prepare(self, pixels: Tensor) -> Tensor:
        """Nothing is done."""
        return pixels

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Activations after blocks."""
        last = self.num_layers - 1
        with outputs_of(self._blocks, [i for i in layers if i < last]) as found:
            encoded = self.tokenizer.encoder(shown.to(self.tokenizer.dtype))
        found[last] = self.tokenizer.quantizer.to_latents(encoded)
        return tuple(found[i] for i in layers)


def latents_of_pixels(pipeline: Pipeline, pixels: Tensor) -> Tensor:
    """Latents ``(B, C, h, w)`` of ``(B, 3, H, W)``."""
    latents = pipeline.image_tokenizer.encode(pixels).latents
    assert latents is not None
    return latents


@torch.no_grad()
def tell(
    pipeline: Pipeline, objective: Diffusion, texts: Sequence[str], *, batch_size: int = 64
) -> Tensor:
    """What the trunk tells the denoiser for texts: ``(len(texts), n, D)``."""
    told: list[Tensor] = []
    for start in range(0, len(texts), batch_size):
        chunk = texts[start : start + batch_size]
        blank = objective.zeros(pipeline.device)
        pictures = ImageTokens.cat([blank] * len(chunk))
        batch = lay_out(pipeline, chunk, pictures)
        nothing = torch.zeros(len(chunk), 1, device=pipeline.device)
        assert pictures.latents is not None
        draw = NoisyDraw(tokens=pictures, times=nothing, noise=pictures.latents[:, None])
        hidden = run_rows(pipeline, batch, draw).flatten(0, 1)
        index = batch.slots[pipeline.drawing.name].index
        told.append(hidden[index].view(len(chunk), -1, hidden.shape[-1]))
    return torch.cat(told)


def _grid(hidden: Tensor, count: int) -> Tensor:
    """Hidden states of square pictures, raster order, to ``(B, D, h, w)``."""
    rows = hidden.view(count, -1, hidden.shape[-1]).transpose(1, 2)
    side = round(rows.shape[-1] ** 0.5)
    return rows.unflatten(-1, (side, side))


def _randomised(pipeline: Pipeline, source: str, seed: int) -> Pipeline:
    """The same sizes with fresh weights; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if source == "encoder":
            config = pipeline.image_tokenizer.config
            fresh = image_tokenizer_state(ImageTokenizer(config))
            tokenizer = image_tokenizer_of(config, fresh)
            tokenizer = tokenizer.requires_grad_(True).to(pipeline.device)
            return replace(pipeline, image_tokenizer=tokenizer, name=f"{pipeline.name} at random")
        old = pipeline.model
        model = UniMM(old.config, special=old.special, spec=old.spec)
        for parameter in model.parameters():
            if parameter.ndim > 1 and not parameter.any():
                # What starts as zero would let nothing but the input through.
                nn.init.normal_(parameter, std=0.02)
    model.bind(pipeline.image_tokenizer)
    return replace(
        pipeline, model=model.eval().to(pipeline.device), name=f"{pipeline.name} at random"
    )
