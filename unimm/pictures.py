"""Pictures to tokens and back, through a pipeline's image tokenizer.

Shapes: B batch, H W picture, h w code grid, C latent channels.
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unimm.document import ImageTokens
from unimm.nn.recorded import Recorder
from unimm.pipeline import Pipeline
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.pixels import begin_copy, to_levels

_DECODE_CHUNK = 64  # pictures at once: about 1 GB of activations at 128 pixels
_OVERLAP = 2**20  # pixels that a GPU draws, or a recording holds, while the host packs those before
_recorders: "WeakKeyDictionary[ImageTokenizer, Recorder]" = WeakKeyDictionary()


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
        chunk = images[start : start + _DECODE_CHUNK]
        drawn = tokenizer.drawn_of(ImageTokens.stack(chunk), prefer_latents=prefer_latents)
        drawn = drawn.map(lambda x: x.to(pipeline.device))
        height, width = drawn.tensors()[-1].shape[-2:]  # of latents or of the finest codes
        area = height * width * tokenizer.downsample**2
        size = max(1, _OVERLAP // area) if pipeline.device.type == "cuda" else _DECODE_CHUNK
        recorder = _recorder_of(pipeline) if area <= _OVERLAP else None
        with torch.autocast(pipeline.device.type, torch.bfloat16, enabled=is_half):
            copies = [
                begin_copy(_decode(tokenizer, drawn[i : i + size], recorder))
                for i in range(0, len(chunk), size)
            ]
        for wait in copies:
            pictures += [Image.fromarray(x) for x in wait()]
    return pictures


def _recorder_of(pipeline: Pipeline) -> Recorder | None:
    """Of a tokenizer's decoder; none beside training, as recordings keep their activations."""
    found = _recorders.get(pipeline.image_tokenizer)
    # Asked until there is one: to look at all parameters takes the host some hundred microseconds.
    if found is None and not any(x.requires_grad for x in pipeline.model.parameters()):
        found = _recorders[pipeline.image_tokenizer] = Recorder()
    return found


def _decode(tokenizer: ImageTokenizer, drawn: ImageTokens, recorder: Recorder | None) -> Tensor:
    """Draw bytes ``(B, H, W, 3)``, if possible from a recording: its kernels are short."""
    parts = drawn.tensors()

    def draw(*parts: Tensor) -> Tensor:
        given = iter(parts)
        vectors = tokenizer.vectors_of(drawn.map(lambda _: next(given)))
        return to_levels(tokenizer.decode_vectors(vectors))

    if recorder is None:
        return draw(*parts)
    places = (tokenizer.decoder.output.weight.data_ptr(), tokenizer.latent_mean.data_ptr())
    is_half = torch.is_autocast_enabled(parts[0].device.type)
    return recorder.run((*places, bool(drawn.scale_codes), is_half), draw, *parts)


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
        return Image.fromarray(to_levels(pixels.float()[None])[0].cpu().numpy())
    if pixels.dtype != torch.uint8:
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
