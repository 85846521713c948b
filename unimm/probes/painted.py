"""Depth that a model paints as a picture: how it is made, merged, scored and shown.

What is painted is the logarithm of depth, near ones light: in depth itself all that is near would
share a few dark greys, which image tokenizers draw worst. It has no scale and no unit: all rows are
scored after the factor and the exponent of depth that fit each picture best. Legend: ``B``
pictures, ``M`` members, ``H W`` size.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unimm.data.labelled.sets import LabelledPictures
from unimm.metrics.depth import affine_align, depth_errors
from unimm.probes.depth import Row, trivial_depth
from unimm.probes.depth_ensemble import ensemble_depth
from unimm.probes.plots import depth_picture, picture_rows, to_array
from unimm.probes.probe import Bench

ERROR = "AbsRel, aligned"
CEILING = "depth through the image tokenizer"
COLUMNS = (ERROR, "delta1, aligned")
_LOW, _HIGH = 0.02, 0.98
_NUM_SHOWN = 6
_SMALLEST = 1e-3


def depth_picture_of(depth: Tensor, mask: Tensor) -> Tensor:
    """Depth ``(B, H, W)`` as a grey picture ``(B, 3, H, W)`` in [-1, 1].

    Each map is stretched so that its quantiles 2 and 98 % are the ends; what has no depth is far.
    """
    nearness = nearness_of(depth)
    ends = [
        torch.quantile(d[m], torch.tensor([_LOW, _HIGH], device=d.device))
        for d, m in zip(nearness, mask, strict=True)
    ]
    low, high = torch.stack(ends).unbind(1)
    spread = (high - low).clamp(min=1e-6)[:, None, None]
    stretched = (2 * (nearness - low[:, None, None]) / spread - 1).clamp(-1, 1)
    return torch.where(mask, stretched, -1.0)[:, None].expand(-1, 3, -1, -1)


def nearness_of(depth: Tensor) -> Tensor:
    """What is painted of depth, before it is stretched: its logarithm, large where it is near."""
    return -depth.clamp(min=_SMALLEST).log()


def check_size(bench: Bench) -> None:
    """Painted and true depth must be equally large.

    Raises:
        ValueError: if the set's pictures have another size than those that the model draws.
    """
    found = bench.data.test.pixels.shape[-1]
    if found != bench.model.image_size:
        raise ValueError(
            f"{bench.model.name} draws pictures of {bench.model.image_size} pixels a side, the "
            f"data set has {found}: set data.image_size to {bench.model.image_size}"
        )


def painted_row(part: LabelledPictures, painted: Tensor) -> Row:
    """Errors of painted depth ``(B, H, W)`` of a whole set, aligned as it is painted."""
    depth, mask = part.need("depth"), part.need("has_depth")
    found = depth_errors((-affine_align(painted, nearness_of(depth), mask)).exp(), depth, mask)
    names = zip(COLUMNS, ("abs_rel", "delta1"), strict=True)
    return {column: round(float(found[name].mean()), 4) for column, name in names}


def trivial_rows(bench: Bench) -> dict[str, Row]:
    """The mean depth map and constant depth, scored alike."""
    test = bench.data.test
    return {name: painted_row(test, nearness_of(x)) for name, x in trivial_depth(bench).items()}


def merge_members(members: Tensor, device: torch.device, *, batch_size: int) -> Tensor:
    """The ensemble, some pictures at once: ``(M, B, H, W)`` to ``(B, H, W)``."""
    chunks = members.split(batch_size, dim=1)
    return torch.cat([ensemble_depth(x.to(device))[0].cpu() for x in chunks])


def painted_plot(part: LabelledPictures, shown: Sequence[tuple[str, Tensor]]) -> Image.Image:
    """Pictures, truth and painted depth ``(B, H, W)`` side by side."""
    depth, mask = (part.need(x)[:_NUM_SHOWN] for x in ("depth", "has_depth"))
    truth = depth_picture_of(depth, mask)[:, 0]
    columns = [("picture", [to_array(x) for x in part.pixels[:_NUM_SHOWN]])]
    for name, maps in [("truth", truth), *shown]:
        # Stretched alike: what is painted has no scale of its own.
        columns.append((name, [_grey(x) for x in maps[:_NUM_SHOWN]]))
    return picture_rows(columns)


def _grey(nearness: Tensor) -> Any:
    low, high = torch.quantile(nearness.flatten(), torch.tensor([_LOW, _HIGH]))
    return depth_picture(((high - nearness) / (high - low).clamp(min=1e-6)).exp(), 1.0, math.e)
