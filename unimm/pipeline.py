"""A pipeline: a model and its two tokenizers, loaded, on one device, ready to read and draw.

Shapes: B batch, H W picture, h w code grid.
"""

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unimm.checkpoint import Manifest, SamplerDefaults, load_model, save_model
from unimm.checkpoint.weights import Precision, keep_int8
from unimm.document import ImageTokens
from unimm.model import UniMM
from unimm.nn.linear import Linear
from unimm.nn.recorded import Recorder
from unimm.objectives.base import ObjectiveConfig
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.pixels import begin_copy, to_levels
from unimm.tokenizer.text import TextTokenizer

SHIPPED = Path(__file__).parent / "assets" / "models"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DECODE_CHUNK = 64  # pictures at once: about 1 GB of activations at 128 pixels
_OVERLAP = 2**20  # pixels: while a GPU draws these, the host packs those before
_FEW_PICTURES = 4  # of which a recorded decoder may keep the activations
_recorders: "WeakKeyDictionary[ImageTokenizer, Recorder]" = WeakKeyDictionary()


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
        is_int8 = any(isinstance(x, Linear) and x.is_int8 for x in self.model.modules())
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
            self.model.backbone.lay_together()
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


def encode_image(pipeline: Pipeline, image: Image.Image | str | Path | Tensor) -> ImageTokens:
    """Turn a picture of any size into the tokens that the model reads.

    The middle square is cut out and resized to the size that the model draws; transparency becomes
    white.

    Args:
        pipeline: whose image tokenizer is used.
        image: a picture, the path of one, or a tensor ``(3, H, W)``, uint8 or float in [-1, 1].

    Returns:
        ``codes (h, w)`` and ``latents (C, h, w)`` on the CPU, in the pipeline's code layout.

    Raises:
        ValueError: if the file is missing or no picture, or the tensor has another form.
    """
    square = _square(open_picture(image), pipeline.image_size)
    pixels = torch.as_tensor(np.array(square)).permute(2, 0, 1)  # (3, H, W) uint8
    shown = (pixels / 127.5 - 1).to(pipeline.device)
    tokens = pipeline.image_tokenizer.encode(shown, pipeline.schedule)
    return tokens.map(Tensor.cpu)


def decode_image(pipeline: Pipeline, tokens: ImageTokens) -> Image.Image:
    """Draw one picture from its tokens: ``codes (h, w)`` or ``latents (C, h, w)``.

    Raises:
        ValueError: if a code is out of range or these are tokens of several pictures.
    """
    single = tokens.codes if tokens.codes is not None else tokens.latents
    if single is not None and single.ndim != (2 if tokens.codes is not None else 3):
        raise ValueError(f"these are tokens {tuple(single.shape)} of several pictures; give one")
    return decode_images(pipeline, [tokens])[0]


@torch.no_grad()
def decode_images(pipeline: Pipeline, images: Sequence[ImageTokens]) -> list[Image.Image]:
    """Draw several pictures of one size, some at once.

    Denoising draws latents: they are decoded, their codes are only what is read later. A GPU whose
    model is in half precision decodes so: the pictures differ by about a level in 256.
    """
    prefer_latents = pipeline.drawing.needs_latents
    is_float32 = pipeline.model.text_embedding.weight.dtype == torch.float32
    is_half = pipeline.device.type == "cuda" and not is_float32
    tokenizer, pictures = pipeline.image_tokenizer, list[Image.Image]()
    for start in range(0, len(images), _DECODE_CHUNK):
        chunk = ImageTokens.stack(images[start : start + _DECODE_CHUNK])
        chunk = chunk.map(lambda x: x.to(pipeline.device))
        vectors = tokenizer.vectors_of(chunk, prefer_latents=prefer_latents)
        area = vectors.shape[-2] * vectors.shape[-1] * tokenizer.downsample**2
        size = max(1, _OVERLAP // area) if vectors.is_cuda else len(vectors)
        with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=is_half):
            copies = [
                begin_copy(_decode(tokenizer, vectors[i : i + size]))
                for i in range(0, len(vectors), size)
            ]
        for wait in copies:
            pictures += [Image.fromarray(x) for x in wait()]
    return pictures


def _decode(tokenizer: ImageTokenizer, vectors: Tensor) -> Tensor:
    """Draw bytes ``(B, H, W, 3)``; few pictures, whose kernels are short, from a recording."""

    def draw(vectors: Tensor) -> Tensor:
        return to_levels(tokenizer.decode_vectors(vectors))

    if len(vectors) > _FEW_PICTURES or torch.is_grad_enabled():
        return draw(vectors)
    recorder = _recorders.setdefault(tokenizer, Recorder())
    place = tokenizer.decoder.output.weight.data_ptr()
    key = (place, torch.is_autocast_enabled(vectors.device.type))
    return recorder.run(key, draw, vectors)


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


def open_picture(image: Image.Image | str | Path | Tensor) -> Image.Image:
    """Read a picture, whole and as it is.

    Args:
        image: a picture, the path of one, or a tensor as ``encode_image`` takes it.

    Raises:
        ValueError: if the file is missing, no picture, cut off, or so large that it may be a
            decompression bomb (``PIL.Image.MAX_IMAGE_PIXELS`` twice); or the tensor is malformed.
    """
    if isinstance(image, Tensor):
        return _tensor_to_picture(image)
    if isinstance(image, Image.Image):
        return image
    path = Path(image)
    if not path.is_file():
        raise ValueError(f"no picture at {path}")
    try:
        with Image.open(path) as opened:
            opened.load()
            return opened.copy()
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path} is too large to be opened safely: {error} Shrink it.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, struct.error) as error:
        raise ValueError(f"{path} is not a picture that can be read: {error}") from error


def _tensor_to_picture(pixels: Tensor) -> Image.Image:
    if pixels.ndim != 3 or pixels.shape[0] != 3 or 0 in pixels.shape:
        raise ValueError(f"a picture must be (3, H, W), got {tuple(pixels.shape)}")
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if not -1.001 <= low <= high <= 1.001:  # false for NaN too
            raise ValueError(f"float pixels must lie in [-1, 1], found {low:g} to {high:g}")
        pixels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    elif pixels.dtype != torch.uint8:
        raise ValueError(f"pixels must be uint8 or float in [-1, 1], got {pixels.dtype}")
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().contiguous().numpy())


def _square(picture: Image.Image, side: int) -> Image.Image:
    """Upright, without alpha, the middle square resized with antialiasing."""
    picture = ImageOps.exif_transpose(picture)
    if "A" in picture.getbands() or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    if picture.size == (side, side):
        return picture
    return ImageOps.fit(picture, (side, side), method=Image.Resampling.LANCZOS)
