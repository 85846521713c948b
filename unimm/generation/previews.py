"""How a picture was drawn: what there was of it at a few moments."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unimm.document import NO_CODE, ImageTokens
from unimm.pictures import decode_images
from unimm.pipeline import Pipeline

BLANK = (232, 226, 214)  # of what is not drawn yet: paper


class Recorder:
    """Watches the drawing of a batch of pictures and keeps evenly spaced moments of it.

    Args:
        num_moments: before the picture is done; 0 keeps none.
    """

    def __init__(self, num_moments: int) -> None:
        # The last moment lies well before the end, which is the picture itself.
        self._due = [(i + 1) / (num_moments + 1) for i in range(num_moments)]
        self._moments: list[ImageTokens] = []

    def watch(self, share: float, so_far: Callable[[], ImageTokens]) -> None:
        """Called by the objective after every step."""
        if self._due and share < 1 and share >= self._due[0]:
            while self._due and share >= self._due[0]:
                self._due.pop(0)
            self._moments.append(so_far().map(Tensor.cpu))

    def of(self, place: int) -> tuple[ImageTokens, ...]:
        """The moments of one picture of the batch."""
        return tuple(moment[place] for moment in self._moments)


def decode_previews(
    pipeline: Pipeline, moments: Sequence[ImageTokens], tokens: ImageTokens, picture: Image.Image
) -> tuple[Image.Image, ...]:
    """Draw the moments of a picture, blank where codes are unknown.

    What is a part of the finished codes is that part of the finished picture: nothing is decoded.

    Args:
        pipeline: whose image tokenizer is used.
        moments: what there was while it was drawn.
        tokens: the finished picture.
        picture: the same, decoded.
    """
    drawn = [x for x in moments if not _is_part(x, tokens)]
    decoded = iter(decode_images(pipeline, drawn))
    return tuple(
        _blanked(picture, x.codes) if _is_part(x, tokens) else next(decoded) for x in moments
    )


def _is_part(moment: ImageTokens, tokens: ImageTokens) -> bool:
    if moment.codes is None or tokens.codes is None or moment.latents is not None:
        return False
    return bool(((moment.codes == tokens.codes) | (moment.codes == NO_CODE)).all())


def _blanked(picture: Image.Image, codes: Tensor | None) -> Image.Image:
    assert codes is not None
    known = (codes != NO_CODE).to(torch.uint8).mul(255)  # (h, w)
    mask = Image.fromarray(np.asarray(known)).resize(picture.size, Image.Resampling.NEAREST)
    return Image.composite(picture, Image.new("RGB", picture.size, BLANK), mask)
