"""Training one autoencoder on several schedules: single grids of codes, and pyramids of grids.

Shapes: B batch, C latent channels, h w latent grid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unimm.tokenizer.pyramid import Pyramid
from unimm.tokenizer.quantizer import Quantizer, flat_vectors

SINGLE = "single"  # the schedule of one grid of codes


class Learned(NamedTuple):
    """What quantizing a training batch gives.

    Attributes:
        vectors: ``(B, C, h, w)`` with gradients straight through to the latents.
        codes: ``(n,)`` int64, all codes that stand for pictures, whatever their schedule.
        seen: what each codebook's lookups saw, ``(n, C)`` a codebook.
        loss: scalar.
    """

    vectors: Tensor
    codes: Tensor
    seen: tuple[Tensor, ...]
    loss: Tensor


def learn_schedules(
    latents: Tensor,
    schedules: Sequence[tuple[int, ...]],
    *,
    pyramid: Pyramid,
    quantizer: Quantizer,
    copy_quantizer: Quantizer | None = None,
) -> Learned:
    """Quantize a batch, each schedule its part of the pictures, and let the codebooks learn.

    The loss of a pyramid is VAR's: commitment of the latents to the sum after every scale, and of
    every sum to the latents, which teaches the convolutions.

    Args:
        latents: ``(B, C, h, w)``, in the space of the codebooks.
        schedules: sides of each one's grids; of a single grid no sides.
        pyramid: upsampling and convolutions.
        quantizer: the codebook that pictures are drawn from.
        copy_quantizer: a single-scale codebook that learns the sums of pyramids, where
            ``quantizer`` has no single grids to learn.
    """
    vectors: list[Tensor] = []
    codes: list[Tensor] = []
    seen: list[Tensor] = []
    losses: list[Tensor] = []
    for scales, part in zip(schedules, latents.tensor_split(len(schedules)), strict=True):
        if scales:
            found = pyramid.encode(part, scales, quantizer)
            total, codes_of, seen_of = found.sums[-1], found.codes, found.seen
            terms = [
                F.mse_loss(part, sums.detach()) + F.mse_loss(sums, part.detach())
                for sums in found.sums
            ]
            losses.append(torch.stack(terms).mean())
        else:
            codes_of, seen_of = (quantizer.nearest(part),), (part,)
            total = quantizer.embed(codes_of[0])
            losses.append(F.mse_loss(part, total))
        vectors.append(part + (total - part).detach())
        codes += [grid.flatten() for grid in codes_of]
        seen += [flat_vectors(grid.detach()) for grid in seen_of]
    drawn, looked_up, all_codes = torch.cat(vectors), torch.cat(seen), torch.cat(codes)
    quantizer.learn(looked_up, all_codes)
    all_seen = [looked_up]
    if copy_quantizer is not None:
        sums = drawn.detach()
        copied = flat_vectors(sums)
        copy_quantizer.learn(copied, copy_quantizer.nearest(sums).flatten())
        all_seen.append(copied)
    return Learned(drawn, all_codes, tuple(all_seen), torch.stack(losses).mean())
