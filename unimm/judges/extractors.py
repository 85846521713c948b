"""Extractors: networks that turn pictures into features, for measures between sets of pictures.

All have one interface, ``extractor(pixels) -> features``, and a name that every figure carries:
a distance in the detector's features is no FID. Networks of others are read from a local folder.

Legend: ``B`` pictures, ``H, W`` their size, ``D`` width of the features.
"""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.judges.detector import Detector

_WEIGHTS, _CONFIG = "model.safetensors", "config.json"
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Extractor:
    """Pictures to features.

    Attributes:
        name: of the network; measures are named by it.
        size: side that pictures are resized to; None leaves them.
        mean: of each channel of what the network was trained on, in 0..1.
        std: likewise.
        network: ``(B, 3, H, W)``, normalised, to ``(B, D)``.
    """

    name: str
    size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    network: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Features of pictures.

        Args:
            pixels: ``(B, 3, H, W)`` float in [-1, 1], on the network's device.

        Returns:
            ``(B, D)`` float32.

        Raises:
            ValueError: pixels of another shape or range.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
            raise ValueError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}; give floats (B, 3, H, W) in "
                "[-1, 1]"
            )
        if pixels.numel() and float(pixels.abs().amax()) > 1.01:
            raise ValueError(
                f"pixels reach {float(pixels.abs().amax()):g}, but must lie in [-1, 1]; "
                "uint8 / 127.5 - 1 gives that range"
            )
        if self.size is not None:
            pixels = clean_resize(pixels, self.size)
        mean = pixels.new_tensor(self.mean).view(1, 3, 1, 1)
        std = pixels.new_tensor(self.std).view(1, 3, 1, 1)
        features = self.network(((pixels + 1) / 2 - mean) / std).float()
        assert features.ndim == 2 and len(features) == len(pixels), features.shape
        return features


def clean_resize(pixels: Tensor, size: int) -> Tensor:
    """Resize as clean-fid does (Parmar et al., 2022): what PIL's bicubic filter gives a channel.

    Eight-bit pixels in, a bicubic filter that widens when it shrinks, floats out that are not
    rounded again. A filter that does not widen moves an FID by several points.

    Args:
        pixels: ``(B, 3, H, W)`` in [-1, 1].
        size: side of the square result.

    Returns:
        ``(B, 3, size, size)`` in [-1, 1].
    """
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255)  # as a PNG holds them
    small = functional.interpolate(levels, size=(size, size), mode="bicubic", antialias=True)
    return small.clamp(0, 255) / 127.5 - 1


def detector_extractor(detector: Detector) -> Extractor:
    """The detector's own features: mean and spread over the picture of its finest map."""

    def pooled(pixels: Tensor) -> Tensor:
        maps = detector(pixels.to(detector.heat_head.weight.dtype)).features.float()
        return torch.cat([maps.mean(dim=(2, 3)), maps.std(dim=(2, 3))], dim=1)  # (B, 2 C)

    middle, size = (0.5,) * 3, detector.config.image_size
    return Extractor(name="detector", size=size, mean=middle, std=middle, network=pooled)


def load_extractor(folder: str | Path, *, device: torch.device | str = "cpu") -> Extractor:
    """Read a network from a local folder: CLIP or DINOv2 (``transformers``), Inception (``timm``).

    The folder is what the Hub holds of the model: ``config.json`` and ``model.safetensors``.
    CLIP gives its projected picture embedding, DINOv2 its class token, a ``timm`` network the
    pooled features before its classifier. Published FIDs come from one Inception of 2015; other
    Inception weights give other numbers.

    Args:
        folder: the model's folder.
        device: where it runs.

    Raises:
        ValueError: the folder holds no such model, or the package that reads it is missing.
    """
    folder = Path(folder)
    for name in (_CONFIG, _WEIGHTS):
        if not (folder / name).is_file():
            raise ValueError(f"no {name} in {str(folder)!r}; copy the model's folder from the Hub")
    config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    if "architecture" in config:
        return _load_timm(folder, config, device)
    kind = config.get("model_type")
    if kind not in _TRANSFORMERS:
        raise ValueError(
            f"{str(folder)!r} holds a {kind!r}; known are {sorted(_TRANSFORMERS)} of transformers "
            "and the networks of timm"
        )
    return _TRANSFORMERS[kind](folder, device)


def _load_clip(folder: Path, device: torch.device | str) -> Extractor:
    from transformers import CLIPVisionModelWithProjection

    model = _ready(CLIPVisionModelWithProjection.from_pretrained(folder), device)
    side = int(model.config.image_size)

    def embed(pixels: Tensor) -> Tensor:
        return model(pixel_values=pixels).image_embeds

    mean, std = _normalisation(folder, _CLIP_MEAN, _CLIP_STD)
    return Extractor(name="clip", size=side, mean=mean, std=std, network=embed)


def _load_dinov2(folder: Path, device: torch.device | str) -> Extractor:
    from transformers import Dinov2Model

    model = _ready(Dinov2Model.from_pretrained(folder), device)

    def embed(pixels: Tensor) -> Tensor:
        return model(pixel_values=pixels).pooler_output  # the normalised class token

    # Trained at 518 pixels, it is read at 224: positions are interpolated (Stein et al., 2023).
    side = min(224, int(model.config.image_size))
    mean, std = _normalisation(folder, _IMAGENET_MEAN, _IMAGENET_STD)
    return Extractor(name="dinov2", size=side, mean=mean, std=std, network=embed)


_TRANSFORMERS: dict[str, Callable[[Path, torch.device | str], Extractor]] = {
    "clip": _load_clip,
    "clip_vision_model": _load_clip,
    "dinov2": _load_dinov2,
}


def _load_timm(folder: Path, config: dict[str, Any], device: torch.device | str) -> Extractor:
    name = config["architecture"]
    if importlib.util.find_spec("timm") is None:
        raise ValueError(f"{str(folder)!r} holds timm's {name}; pip install timm")
    import timm  # pyright: ignore[reportMissingImports]

    model = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True, num_classes=0)
    data = config["pretrained_cfg"]
    return Extractor(
        name=name,
        size=int(data["input_size"][-1]),
        mean=_triple(data["mean"]),
        std=_triple(data["std"]),
        network=_ready(model, device),
    )


def _ready(model: nn.Module, device: torch.device | str) -> Any:
    return model.eval().requires_grad_(False).to(device)


def _normalisation(
    folder: Path, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What ``preprocessor_config.json`` says, or the model family's usual."""
    path = folder / "preprocessor_config.json"
    said = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return _triple(said.get("image_mean", mean)), _triple(said.get("image_std", std))


def _triple(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(x) for x in values)
