"""What a judge is asked: an instruction, texts and pictures in order, and the allowed answers."""

import base64
import hashlib
import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from unimm.judges.answers import Answer, AnswerForm

Picture = Path | Image.Image
"""A picture, or the file that holds it: files are opened only while they are asked about."""


class PictureError(ValueError):
    """A picture that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Query:
    """What a judge is asked.

    Attributes:
        name: what to call it in messages and results, such as ``00012/0003``.
        instruction: how to judge; the system message.
        parts: texts and pictures in the order they are shown.
        form: the answers it allows.
        truth: the right answer where it is known. The oracle gives it; it is never sent to a judge
            and does not enter ``key``.
    """

    name: str
    instruction: str
    parts: tuple[str | Picture, ...]
    form: AnswerForm
    truth: Answer | None = field(default=None, compare=False)

    def key(self) -> str:
        """SHA-256 of all that a judge sees: words, pixels, and the form of the answer.

        Raises:
            PictureError: a picture cannot be read.
        """
        shown = [part if isinstance(part, str) else _fingerprint(part) for part in self.parts]
        content = json.dumps([self.instruction, shown, repr(self.form)])
        return hashlib.sha256(content.encode()).hexdigest()

    def messages(self) -> list[dict[str, Any]]:
        """The messages of a chat completion, pictures as data URLs.

        Raises:
            PictureError: a picture cannot be read.
        """
        content = [
            {"type": "text", "text": part}
            if isinstance(part, str)
            else {"type": "image_url", "image_url": {"url": data_url(part)}}
            for part in self.parts
        ]
        return [
            {"role": "system", "content": self.instruction},
            {"role": "user", "content": content},
        ]


def data_url(picture: Picture) -> str:
    """A picture as ``data:image/png;base64,...``, without loss."""
    buffer = io.BytesIO()
    load_rgb(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def load_rgb(picture: Picture) -> Image.Image:
    """The pixels of a picture as RGB.

    Raises:
        PictureError: the file is missing, broken, or no picture.
    """
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PictureError(f"cannot read the picture {picture}: {error}") from error


def _fingerprint(picture: Picture) -> dict[str, Any]:
    # Pixels, not file bytes: another release of the PNG encoder must not empty the cache.
    image = load_rgb(picture)
    return {"size": image.size, "rgb": hashlib.sha256(image.tobytes()).hexdigest()}
