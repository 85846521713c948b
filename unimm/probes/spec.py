"""What probes ask a model for, and what a model must offer to be asked.

Legend: ``B`` pictures, ``H W`` their size, ``D h w`` features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from unimm.pipeline import Pipeline

Pool = Literal["none", "mean"]


@dataclass(frozen=True, kw_only=True)
class FeatureSpec:
    """Which features.

    Attributes:
        source: ``denoiser`` (the network that denoises: a head, the trunk, a UNet, a DiT),
            ``trunk`` (hidden states over the given picture), ``encoder`` (of the image tokenizer)
            or ``pixels`` (none: the control).
        layer: number of the layer, negative from the end.
        timestep: share of noise in [0, 1), for what denoises.
        noise_seed: of the noise, which is the same for every picture.
        num_noises: noises that features are averaged over (DIFT).
        condition: text beside the picture; empty is the null condition of guidance.
        pool: ``mean`` over places.
    """

    source: str = "denoiser"
    layer: int = -1
    timestep: float = 0.1
    noise_seed: int = 0
    num_noises: int = 1
    condition: str = ""
    pool: Pool = "none"

    def __post_init__(self) -> None:
        if not 0 <= self.timestep < 1:
            raise ValueError(f"timestep {self.timestep} is a share of noise: 0 <= timestep < 1")
        if self.num_noises < 1:
            raise ValueError(f"num_noises must be at least 1, got {self.num_noises}")


class Source(Protocol):
    """A network that features are taken from."""

    @property
    def num_layers(self) -> int:
        """How many layers can be asked for."""
        ...

    @property
    def network(self) -> nn.Module:
        """Its weights, none for raw pixels; a control redraws and trains them."""
        ...

    @property
    def is_noisy(self) -> bool:
        """Whether time and noise matter."""
        ...

    def prepare(self, pixels: Tensor) -> Tensor:
        """What it is shown of pictures ``(B, 3, H, W)``, whatever is asked: latents, or pixels.

        It is made once for all noises and all steps of training.
        """
        ...

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """``(B, D, h, w)`` a layer, counted from 0, of what was prepared; keeps gradients."""
        ...


@dataclass(frozen=True, kw_only=True)
class FeatureModel:
    """A loaded model as probes see it.

    Attributes:
        name: of the model.
        device: where it runs.
        image_size: side that pictures are resized to.
        sources: name -> network.
        randomise: gives the same model with one source's weights drawn anew from a seed.
        pipeline: behind it, where it is one of ours.
    """

    name: str
    device: torch.device
    image_size: int
    sources: Mapping[str, Source]
    randomise: Callable[[str, int], "FeatureModel"]
    pipeline: Pipeline | None = None

    def weights(self, source: str) -> list[nn.Module]:
        """All modules that the features of a source follow from."""
        network = self.source(source).network
        if self.pipeline is None:
            return [network, *getattr(self.source(source), "frozen", ())]
        return [network, self.pipeline.model, self.pipeline.image_tokenizer]

    def source(self, name: str) -> Source:
        """The network of that name.

        Raises:
            ValueError: if the model has none.
        """
        if name not in self.sources:
            raise ValueError(
                f"{self.name} has no source {name!r}; it has {', '.join(self.sources)}"
            )
        return self.sources[name]


def resolve_layers(source: Source, layers: Sequence[int]) -> list[int]:
    """Layer numbers from 0.

    Raises:
        ValueError: if there is no such layer.
    """
    count = source.num_layers
    for layer in layers:
        if not -count <= layer < count:
            raise ValueError(f"layer {layer} does not exist: this source has {count} layers")
    return [layer % count for layer in layers]


def half_precision(device: torch.device) -> torch.autocast:
    """Matrix products and convolutions in bfloat16 on a GPU; nothing changes on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def shared_noise(shape: Sequence[int], seed: int, device: torch.device) -> Tensor:
    """Noise ``(1, *shape)`` that all pictures share, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    # Without waiting for the device: training asks for another one at every step.
    return torch.randn((1, *shape), generator=generator).to(device, non_blocking=True)
