"""Search: where a figure may stand, and which looks could stand there.

The lowest pixel of a figure is its shadow, so wherever the foreground ends below, something stands.

Shapes: B pictures, S side of a picture, A anchors, M places tried at an anchor.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from unimm.data.world.art import UNIT
from unimm.judges.parser_fit import Candidates, Views
from unimm.judges.parser_templates import Templates, patch_features

_SHADOW = 6.0  # canvas pixels from a figure's foot to the lowest pixel of its shadow
_MOST_ANCHORS = 8
_PATCHES = 2048  # compared at once
_SIZES = tuple(0.18 * 1.1**k for k in range(15))  # heights of a face tried, of the picture's
_EDGE = 0.05  # nothing stands nearer to a side, and nothing below the same from the lower edge
_HIGHEST = 0.4  # nothing stands above


@dataclass(frozen=True)
class Grid:
    """Places tried around an anchor, in units of the figure's size: steps to the side and down."""

    aside: tuple[float, ...]
    down: tuple[float, ...]


NEAR = Grid(aside=tuple(np.linspace(-0.36, 0.36, 11).tolist()), down=(-0.05, 0.0, 0.05))
# Of a figure whose feet another one hides.
WIDE = Grid(
    aside=tuple(np.linspace(-0.6, 0.6, 21).tolist()), down=tuple(np.linspace(0, 0.6, 11).tolist())
)


def find_anchors(views: Views, *, threshold: float) -> tuple[Tensor, Tensor]:
    """Lower ends of what the backdrop does not explain.

    Args:
        views: the pictures.
        threshold: difference to the backdrop from which a pixel is foreground, of a range of 1.

    Returns:
        ``picture (A,)`` int64 and ``point (A, 2)`` float x, y in pixels.
    """
    size = views.under.shape[-1]
    differs = (views.under - views.ground).abs().amax(1, keepdim=True) > threshold
    differs &= views.weight > 0.1
    solid = differs & (avg_pool2d(differs.float(), 3, stride=1, padding=1) > 0.5)
    rows = torch.arange(1, size + 1, device=solid.device)[:, None]
    lowest = (solid[:, 0] * rows).amax(1)  # (B, S), 0 where a column has no foreground
    pictures, points = [], []
    for b, line in enumerate(lowest.cpu().numpy()):
        for x, y in _lower_ends(line, reach=max(2, size // 16)):
            pictures.append(b)
            points.append((x, y))
    device = views.under.device
    return (
        torch.tensor(pictures, dtype=torch.long, device=device),
        torch.tensor(points, dtype=torch.float32, device=device).view(-1, 2),
    )


def _lower_ends(line: np.ndarray, reach: int) -> list[tuple[float, float]]:
    """Middles of the stretches of a line that nothing within reach lies below."""
    padded = np.pad(line, reach)
    most = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(1)
    is_end = (line > 0) & (line == most)
    edges = np.flatnonzero(np.diff(np.pad(is_end.astype(np.int8), 1)))
    ends = [((a + b) / 2, float(line[a])) for a, b in edges.reshape(-1, 2)]
    return sorted(ends, key=lambda end: -end[1])[:_MOST_ANCHORS]


def leave_out(picture: Tensor, point: Tensor, where: Tensor, views: Views) -> None:
    """Forget anchors that no figure explains, so that what stands behind them is looked at.

    Args:
        picture: ``(A,)`` int64.
        point: ``(A, 2)``.
        where: ``(B,)`` bool, the pictures in which it is done, in place.
        views: the pictures.
    """
    size = views.under.shape[-1]
    reach = size // 32
    for b, (x, y) in zip(picture.tolist(), point.round().int().tolist(), strict=True):
        if where[b]:
            rows, columns = slice(max(0, y - reach), y + 1), slice(max(0, x - reach), x + reach + 1)
            views.weight[b, :, rows, columns] = 0


def propose(
    picture: Tensor,
    point: Tensor,
    views: Views,
    templates: Templates,
    *,
    grid: Grid,
    num_looks: int,
) -> Candidates:
    """The looks that explain most around each anchor, each at its best place.

    Args:
        picture: ``(A,)`` int64.
        point: ``(A, 2)``.
        views: the pictures.
        templates: all looks.
        grid: places tried.
        num_looks: how many looks are kept an anchor.

    Returns:
        ``A * num_looks`` candidates, those of one anchor together.
    """
    size = views.under.shape[-1]
    maps = torch.cat([views.under - views.ground, views.ground], 1) * views.weight
    maps = torch.cat([maps, views.weight], 1)  # (B, 7, S, S)
    levels = [maps, avg_pool2d(maps, 2), avg_pool2d(maps, 4)]
    places = _places(point, grid, size)  # (A, sizes, M, 4)
    rows = max(1, _PATCHES // places.shape[2])
    parts = []
    for some, where in zip(picture.split(rows), places.split(rows), strict=True):
        best, best_place = _best_places([x[some] for x in levels], where, templates)
        look = best.topk(num_looks, dim=1).indices  # (a, num_looks)
        place = best_place.gather(1, look[..., None].expand(-1, -1, 4))
        picked = some.repeat_interleave(num_looks)
        parts.append(Candidates(picked, look.flatten(), place.flatten(0, 1)))
    return Candidates.join(parts)


def _best_places(
    levels: list[Tensor], places: Tensor, templates: Templates
) -> tuple[Tensor, Tensor]:
    """What each look explains at most ``(a, L)``, and where ``(a, L, 4)``.

    Args:
        levels: maps of a picture each ``(a, 7, s, s)``, halved from one to the next.
        places: ``(a, sizes, M, 4)``.
        templates: all looks.
    """
    size = levels[0].shape[-1]
    num, num_looks = len(places), len(templates.figures)
    best = places.new_full((num, num_looks), -torch.inf)
    best_place = places[:, :1, 0].expand(-1, num_looks, -1)
    for k, unit in enumerate(_SIZES):
        # A template's point covers eight canvas pixels: read where a pixel is about as large.
        halvings = round(float(np.log2(max(1.0, 8 * unit * size / UNIT))))
        halvings = min(halvings, len(levels) - 1)
        shrink = places.new_tensor([1, 1, 1, 2**halvings]) / 2**halvings
        patches = patch_features(levels[halvings], places[:, k] * shrink)  # (a, M, 9 P)
        gain = templates.explained(patches)  # (a, M, L)
        gain, where = gain.masked_fill(~_is_inside(places[:, k], size)[..., None], -torch.inf).max(
            1
        )
        gain = gain * (unit * size) ** 2  # a large figure's points stand for more pixels
        place = places[:, k].gather(1, where[..., None].expand(-1, -1, 4))
        is_better = gain > best
        best = torch.where(is_better, gain, best)
        best_place = torch.where(is_better[..., None], place, best_place)
    return best, best_place


def _is_inside(places: Tensor, size: int) -> Tensor:
    """Where a figure may stand at all: no picture cuts one off."""
    x, y = places[..., 0] / size, places[..., 1] / size
    is_inside = (x > _EDGE) & (x < 1 - _EDGE) & (y > _HIGHEST) & (y < 1 - _EDGE / 2)
    return is_inside


def _places(point: Tensor, grid: Grid, size: int) -> Tensor:
    """``(A, sizes, M, 4)``: both directions of every place of the grid."""
    units = torch.tensor(_SIZES, device=point.device) * size
    steps = torch.tensor(
        [[dx, dy, side] for side in (1.0, -1.0) for dy in grid.down for dx in grid.aside],
        device=point.device,
    )
    ratio = (units / UNIT)[None, :, None]
    x = point[:, 0, None, None] + steps[:, 0] * units[:, None]
    y = point[:, 1, None, None] - _SHADOW * ratio + steps[:, 1] * units[:, None]
    shape = x.shape
    return torch.stack([x, y, ratio.expand(shape), steps[:, 2].expand(shape)], -1)
