"""A pipeline: a model and its two tokenizers, loaded, on one device, ready to read and draw.

Shapes: B batch, H W picture, h w code grid.
"""

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from unimm.checkpoint import Manifest, SamplerDefaults, load_model, save_model
from unimm.checkpoint.weights import Precision, keep_int8
from unimm.model import UniMM
from unimm.nn.linear import Linear
from unimm.objectives.base import ObjectiveConfig
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.text import TextTokenizer

SHIPPED = Path(__file__).parent / "assets" / "models"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What reading and drawing need.

    Attributes:
        model: in evaluation mode, on ``device``.
        text_tokenizer: of the model.
        image_tokenizer: of the model, float32, on ``device``.
        sampler: how it draws when the caller does not say.
        objective: which of the model's objectives draws; None is its first.
        name: of the shipped model, folder or Hub id.
        hashes: of both tokenizers, recorded with what is drawn.
        metadata: what the training recorded.
    """

    model: UniMM
    text_tokenizer: TextTokenizer
    image_tokenizer: ImageTokenizer
    sampler: SamplerDefaults = field(default_factory=SamplerDefaults)
    objective: str | None = None
    name: str = "unnamed"
    hashes: dict[str, str] = field(default_factory=dict[str, str])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.model.text_embedding.weight.device

    @property
    def precision(self) -> str:
        """Number format that it draws in."""
        linears = (x for x in self.model.modules() if isinstance(x, Linear))
        is_int8 = self.device.type == "cpu" and any(x.is_int8 for x in linears)
        dtype = str(self.model.text_embedding.weight.dtype)
        return "int8" if is_int8 else dtype.removeprefix("torch.")

    @property
    def image_size(self) -> int:
        """Side in pixels of the pictures it draws."""
        return self.model.spec.grid_size * self.image_tokenizer.downsample

    @property
    def drawing(self) -> ObjectiveConfig:
        """The objective that draws."""
        return self.model.config.find_objective(self.objective)

    @property
    def schedule(self) -> str:
        """Code layout of the pictures it draws."""
        return self.drawing.schedule

    def draw_by(self, objective: str | None) -> "Pipeline":
        """The same model drawing by another of its objectives, with the defaults that suit it.

        Args:
            objective: its name; None changes nothing.

        Raises:
            ValueError: if the model was not trained with it.
        """
        config = self.model.config.find_objective(objective or self.objective)
        if config == self.drawing:
            return self
        pages = SamplerDefaults.of(config)
        sampler = replace(self.sampler, first_page=pages.first_page, later_pages=pages.later_pages)
        return replace(self, objective=config.name, sampler=sampler)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "Pipeline":
        """Move it, weights and all; a model on a GPU computes in bfloat16 unless told otherwise.

        Args:
            device: where to.
            dtype: of the model's weights; by default bfloat16 on a GPU, float32 on the CPU.
        """
        target = torch.device(device)
        default = torch.bfloat16 if target.type == "cuda" else torch.float32
        self.model.to(target, dtype or default)
        if target.type == "cuda":
            self.model.lay_together()
        self.image_tokenizer.to(target)
        # A GPU's convolutions read weights so; turning them takes as long as a small picture.
        layout = torch.channels_last if target.type == "cuda" else torch.contiguous_format
        cast(Any, self.image_tokenizer.decoder).to(memory_format=layout)
        return self

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """What the image tokenizer leaves of pictures ``(B, 3, H, W)`` that the objective draws.

        They go through its code layout, or through latents where it draws those.
        """
        if self.drawing.needs_latents:
            tokens = self.image_tokenizer.encode(pixels)
            return self.image_tokenizer.decode(tokens, prefer_latents=True)
        return self.image_tokenizer.reconstruct(pixels, self.schedule)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        precision: Precision = "float32",
        image_precision: Precision = "float32",
        max_shard_bytes: int | None = None,
        shared_image_tokenizer: str = "",
    ) -> Manifest:
        """Write a model folder that ``load_pipeline`` reads; arguments as ``save_model``."""
        return save_model(
            folder,
            self.model,
            self.text_tokenizer,
            self.image_tokenizer,
            precision=precision,
            image_precision=image_precision,
            sampler=self.sampler,
            metadata=self.metadata,
            max_shard_bytes=max_shard_bytes,
            shared_image_tokenizer=shared_image_tokenizer,
        )


def load_pipeline(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    objective: str | None = None,
) -> Pipeline:
    """Load a model by name.

    Args:
        name: of a shipped model such as ``storyworld``, a model folder, or ``owner/name`` of the
            Hugging Face Hub, which is downloaded.
        device: by default the GPU if there is one, else the CPU.
        dtype: of the model's weights; by default bfloat16 on a GPU and float32 on the CPU, where
            the int8 matrices of a folder then also multiply as int8 if the processor is made for
            it: the same weights, the activations rounded to bfloat16. Give ``torch.float32`` for
            full precision.
        objective: which of the model's objectives draws; by default its first.

    Raises:
        ValueError: if there is no such model, or its folder is damaged.
        ConnectionError: if a Hub model cannot be fetched.
    """
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, text_tokenizer, image_tokenizer, manifest = load_model(_find(str(name)))
    pipeline = Pipeline(
        model=model,
        text_tokenizer=text_tokenizer,
        image_tokenizer=image_tokenizer,
        sampler=manifest.sampler,
        name=str(name),
        hashes={
            "text_tokenizer": manifest.text_tokenizer_hash,
            "image_tokenizer": manifest.image_tokenizer_hash,
        },
        metadata=manifest.metadata,
    ).to(target, dtype)
    if dtype is None and target.type == "cpu" and manifest.precision == "int8":
        keep_int8(model)
    return pipeline.draw_by(objective)


def shipped_models() -> list[str]:
    """Names of the models that come with the package."""
    if not SHIPPED.is_dir():
        return []
    return sorted(path.name for path in SHIPPED.iterdir() if (path / "config.json").is_file())


def _find(name: str) -> Path:
    if name in shipped_models():
        return SHIPPED / name
    if Path(name).is_dir():
        return Path(name)
    if _HUB_ID.fullmatch(name):
        return _download(name)
    known = shipped_models()
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(
        f"no model {name!r}; {hint}shipped: {', '.join(known) or 'none'}; or give a model folder "
        "or a Hub id (owner/name)"
    )


def _download(name: str) -> Path:
    import huggingface_hub

    download = cast(Any, huggingface_hub).snapshot_download
    patterns = ["*.json", "*.safetensors", "README.md", "image_tokenizer/*"]
    try:
        return Path(download(name, allow_patterns=patterns))
    except Exception as error:  # the library raises its own, the network's and the system's
        raise ConnectionError(
            f"no folder {name!r} here, and the Hub's model of that name could not be fetched "
            f"({type(error).__name__}: {error}). Shipped: {', '.join(shipped_models()) or 'none'}"
        ) from error
