"""Diffusion models of the ``diffusers`` library behind the seam: UNet2DCondition, DiT, SD3.

A folder is what ``save_pretrained`` or the Hub gives: ``unet/`` or ``transformer/``, ``vae/``,
``scheduler/``. With its text encoders and ``model_index.json`` it can also be conditioned on text;
without, the condition is zeros. Safetensors only. Legend: ``B`` pictures, ``C h w`` latents.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unimm.probes.documents import outputs_of
from unimm.probes.pixel_source import PixelSource
from unimm.probes.spec import FeatureModel, FeatureSpec, Source, shared_noise

_NETWORKS = ("unet", "transformer")


def is_diffusers_folder(name: str | Path) -> bool:
    """Whether a path is a folder of ``diffusers``: it has a ``unet`` or a ``transformer``."""
    return any((Path(name) / part / "config.json").is_file() for part in _NETWORKS)


def load_diffusers_folder(folder: Path, *, device: torch.device) -> FeatureModel:
    """Load a folder.

    Raises:
        ValueError: if ``diffusers`` is missing, or the folder lacks a part or holds another kind of
            network.
    """
    try:
        diffusers: Any = importlib.import_module("diffusers")
    except ImportError as error:
        raise ValueError(f"{folder} is a diffusers folder: pip install unimm[diffusers]") from error
    part = next(p for p in _NETWORKS if (folder / p / "config.json").is_file())
    class_name = json.loads((folder / part / "config.json").read_text())["_class_name"]
    if class_name not in _KINDS:
        raise ValueError(f"{folder} holds a {class_name}; known are {', '.join(_KINDS)}")
    network = _load(getattr(diffusers, class_name), folder / part, device)
    if not (folder / "vae" / "config.json").is_file():
        raise ValueError(f"{folder} has no vae/: its network denoises latents of an AutoencoderKL")
    vae = _load(diffusers.AutoencoderKL, folder / "vae", device)
    text = None
    if (folder / "model_index.json").is_file():
        pipe = diffusers.DiffusionPipeline.from_pretrained(
            folder, use_safetensors=True, **{part: network, "vae": vae}
        ).to(device)
        text = getattr(pipe, "encode_prompt", None)
    bars = None if class_name == "SD3Transformer2DModel" else _alpha_bars(folder, diffusers, device)
    source = DiffusersSource(
        network=network, vae=vae, kind=_KINDS[class_name], alpha_bars=bars, encode_prompt=text
    )
    side = int(network.config.sample_size) * 2 ** (len(vae.config.block_out_channels) - 1)
    return _model(str(folder), source, side, device)


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """How one class of networks is read.

    Attributes:
        blocks: the layers that can be asked for.
        hidden: hidden states among what a layer gives.
        call: ``(network, noisy latents, step (B,), condition)`` runs it.
        prompt: arguments of the pipeline's ``encode_prompt``.
        is_grid: its hidden states are ``(B, D, h, w)``, not a row of patches.
    """

    blocks: Callable[[Any], list[nn.Module]]
    hidden: Callable[[Any], Tensor]
    call: Callable[[Any, Tensor, Tensor, Any], Any]
    prompt: Callable[[str, torch.device], dict[str, Any]]
    is_grid: bool = False


def _call_unet(network: Any, x: Tensor, step: Tensor, condition: Any) -> None:
    states = condition[0] if condition is not None else None
    if states is None:
        states = x.new_zeros(1, 1, network.config.cross_attention_dim)
    network(x, step, encoder_hidden_states=states.expand(len(x), -1, -1))


def _call_dit(network: Any, x: Tensor, step: Tensor, condition: Any) -> None:
    null = torch.full((len(x),), network.config.num_embeds_ada_norm, device=x.device)
    network(x, timestep=step.long(), class_labels=null)


def _call_sd3(network: Any, x: Tensor, step: Tensor, condition: Any) -> None:
    if condition is None:
        states = x.new_zeros(1, 1, network.config.joint_attention_dim)
        pooled = x.new_zeros(1, network.config.pooled_projection_dim)
    else:
        states, _, pooled, _ = condition
    network(
        x,
        timestep=step,
        encoder_hidden_states=states.expand(len(x), -1, -1),
        pooled_projections=pooled.expand(len(x), -1),
    )


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _prompt(text: str, device: torch.device) -> dict[str, Any]:
    return {
        **{"prompt": text, "device": device, "num_images_per_prompt": 1},
        "do_classifier_free_guidance": False,
    }


_KINDS: dict[str, _Kind] = {
    "UNet2DConditionModel": _Kind(
        blocks=lambda net: [*net.down_blocks, net.mid_block, *net.up_blocks],
        hidden=_first,
        call=_call_unet,
        prompt=_prompt,
        is_grid=True,
    ),
    "DiTTransformer2DModel": _Kind(
        blocks=lambda net: list(net.transformer_blocks),
        hidden=_first,
        call=_call_dit,
        prompt=_prompt,
    ),
    "SD3Transformer2DModel": _Kind(
        blocks=lambda net: list(net.transformer_blocks),
        hidden=lambda output: output[1],  # (text, picture)
        call=_call_sd3,
        prompt=lambda text, device: {
            **{"prompt": text, "prompt_2": text, "prompt_3": text, "device": device},
            "do_classifier_free_guidance": False,
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class DiffusersSource:
    """A network of ``diffusers`` on the latents of its own autoencoder.

    Attributes:
        network: that denoises.
        vae: its ``AutoencoderKL``.
        kind: how it is read.
        alpha_bars: ``(steps,)`` alpha squared of a variance-preserving schedule; None for a
            rectified flow.
        encode_prompt: of the pipeline, where the folder has text encoders.
    """

    network: Any
    vae: Any
    kind: _Kind
    alpha_bars: Tensor | None
    encode_prompt: Callable[..., Any] | None
    is_noisy: bool = True

    @property
    def frozen(self) -> tuple[nn.Module, ...]:
        """What the network sees pictures through."""
        return (self.vae,)

    @property
    def num_layers(self) -> int:
        """Blocks, the first one first."""
        return len(self.kind.blocks(self.network))

    @torch.no_grad()
    def prepare(self, pixels: Tensor) -> Tensor:
        """Scaled latents."""
        config = self.vae.config
        latents = self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode()
        return (latents - (config.shift_factor or 0.0)) * config.scaling_factor

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """Features after blocks, as grids."""
        noise = shared_noise(shown.shape[1:], spec.noise_seed, shown.device)
        x, step = self._noisy(shown, noise, spec.timestep)
        with outputs_of(self.kind.blocks(self.network), layers) as found:
            self.kind.call(self.network, x, step.expand(len(x)), self._condition(spec.condition))
        maps = (self.kind.hidden(found[i]) for i in layers)
        return tuple(x if self.kind.is_grid else _to_grid(x) for x in maps)

    def _noisy(self, x0: Tensor, noise: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Latents with that share of noise, and the step that the network knows it by."""
        if self.alpha_bars is None:  # x = (1 - t) x0 + t e, and steps are thousandths
            return (1 - t) * x0 + t * noise, x0.new_tensor(1000 * t)
        alpha, sigma = self.alpha_bars.sqrt(), (1 - self.alpha_bars).sqrt()
        step = ((sigma / (alpha + sigma)) - t).abs().argmin()  # see unimm/diffusion/vp.py
        return (alpha[step] * x0 + sigma[step] * noise).to(x0.dtype), step

    def _condition(self, text: str) -> Any:
        if self.encode_prompt is None:
            if text:
                raise ValueError(
                    f"condition {text!r}: this folder has no model_index.json with text encoders"
                )
            return None
        with torch.no_grad():
            return self.encode_prompt(**self.kind.prompt(text, self.network.device))


def _to_grid(hidden: Tensor) -> Tensor:
    """``(B, n, D)`` of a square picture to ``(B, D, h, w)``."""
    side = round(hidden.shape[1] ** 0.5)
    return hidden.transpose(1, 2).unflatten(-1, (side, side))


def _model(name: str, source: DiffusersSource, side: int, device: torch.device) -> FeatureModel:
    sources: dict[str, Source] = {"denoiser": source, "pixels": PixelSource()}

    def randomise(which: str, seed: int) -> FeatureModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = type(source.network).from_config(source.network.config)
            for parameter in fresh.parameters():
                if parameter.ndim > 1 and not parameter.any():
                    nn.init.normal_(parameter, std=0.02)
        changed = replace(source, network=fresh.to(device).eval())
        return _model(f"{name} at random", changed, side, device)

    return FeatureModel(
        name=name, device=device, image_size=side, sources=sources, randomise=randomise
    )


def _alpha_bars(folder: Path, diffusers: Any, device: torch.device) -> Tensor:
    """Alpha squared of the folder's schedule; Stable Diffusion's where it has none."""
    if (folder / "scheduler" / "scheduler_config.json").is_file():
        scheduler = diffusers.DDPMScheduler.from_pretrained(folder / "scheduler")
    else:
        scheduler = diffusers.DDPMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
        )
    return scheduler.alphas_cumprod.to(device)


def _load(cls: Any, folder: Path, device: torch.device) -> Any:
    loaded = cls.from_pretrained(folder, use_safetensors=True, low_cpu_mem_usage=False)
    return loaded.to(device).eval().requires_grad_(False)
