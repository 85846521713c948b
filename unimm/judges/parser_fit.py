"""Fit: move a figure until it explains its part of a picture best, and measure how well it does.

Gauss-Newton on place and size, many candidates at once, on exactly what the renderer would draw.

Shapes: B pictures, F candidates, S side of a picture, W side of a window.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from unimm.data.world.art import CANVAS, FOOT, UNIT
from unimm.data.world.atlas import NUM_LEVELS, Atlas
from unimm.data.world.windows import cut_sprites
from unimm.judges.parser_templates import OUTLINE, PENALTY

_SPILL = 2.0  # pixels around a sprite that a window covers
_TOP, _BOTTOM = 0, 160  # rows of the canvas that figures can fill; they are less wide than that
_DAMPING = 1e-2
_LONGEST = 0.06  # step, in units of the figure's size
_MEMORY = 1 << 25  # numbers in one batch of windows


@dataclass(frozen=True)
class Views:
    """Pictures that figures are fitted to.

    Attributes:
        under: ``(B, 3, S, S)`` in 0..1, the pictures without the figures already explained.
        ground: ``(B, 3, S, S)`` what lies behind a figure.
        weight: ``(B, 1, S, S)``, 0 where an explained figure hides everything.
    """

    under: Tensor
    ground: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Candidates:
    """Figures that may stand in a picture.

    Attributes:
        picture: ``(F,)`` int64, which of the B pictures.
        look: ``(F,)`` int64, which of the templates.
        place: ``(F, 4)``: foot x, y in pixels, picture pixels a canvas pixel, 1 or -1 (mirrored).
    """

    picture: Tensor
    look: Tensor
    place: Tensor

    def __len__(self) -> int:
        return len(self.picture)

    def __getitem__(self, rows: Tensor) -> "Candidates":
        """Some of them: an index or a mask."""
        return Candidates(self.picture[rows], self.look[rows], self.place[rows])

    @staticmethod
    def join(parts: list["Candidates"]) -> "Candidates":
        """One after another."""
        return Candidates(
            torch.cat([x.picture for x in parts]),
            torch.cat([x.look for x in parts]),
            torch.cat([x.place for x in parts]),
        )


@dataclass(frozen=True)
class Fit:
    """How well candidates explain their pictures.

    Attributes:
        score: ``(F,)`` squared error that it explains, less what it leaves inside its outline.
        wrong: ``(F,)`` share of the figure's visible pixels that it does not explain.
        seen: ``(F,)`` share of its pixels that nothing explained hides.
    """

    score: Tensor
    wrong: Tensor
    seen: Tensor

    def __getitem__(self, rows: Tensor) -> "Fit":
        """Some of them: an index or a mask."""
        return Fit(self.score[rows], self.wrong[rows], self.seen[rows])

    @staticmethod
    def join(parts: list["Fit"]) -> "Fit":
        """One after another."""
        return Fit(
            *(torch.cat(list(x)) for x in zip(*(vars(p).values() for p in parts), strict=True))
        )


def sprite_windows(
    place: Tensor, slots: Tensor, atlas: Atlas, size: int
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw figures in windows of few sizes.

    Args:
        place: ``(F, 4)``.
        slots: ``(F,)`` places in the atlas.
        atlas: the sprites.
        size: S.

    Returns:
        Groups of ``rows (f,)``, ``corner (f, 2)`` left and top, ``cut (f, 4, W, W)`` in 0..1.
    """
    ratio = place[:, 2]
    level = (-ratio.log2()).round().clamp(0, NUM_LEVELS - 1).long()
    quantum = max(8, size // 8)
    side = ((ratio * (_BOTTOM - _TOP) + 2 * _SPILL) / quantum).ceil() * quantum
    side = side.clamp(max=size).long()
    groups = []
    for key in torch.unique(side * NUM_LEVELS + level).tolist():
        wide, mip = divmod(key, NUM_LEVELS)
        every = ((side == wide) & (level == mip)).nonzero()[:, 0]
        for rows in every.split(max(1, _MEMORY // (wide * wide * 16))):
            part = place[rows]
            top = part[:, 1] + (_TOP - FOOT) * part[:, 2] - _SPILL
            left = part[:, 0] - (_BOTTOM - _TOP) / 2 * part[:, 2] - _SPILL
            corner = torch.stack([left, top], 1).floor().clamp(0, size - wide)
            scale = torch.stack([part[:, 2] * part[:, 3], part[:, 2]], 1)
            slope = 2 / (CANVAS * scale)
            start = (corner + 0.5 - part[:, :2]) * slope
            start[:, 1] += 2 * FOOT / CANVAS - 1
            transform = torch.stack([slope[:, 0], start[:, 0], slope[:, 1], start[:, 1]], 1)
            sprites = atlas.levels[mip][slots[rows]].float() / 255
            groups.append((rows, corner.long(), cut_sprites(sprites, transform, wide)))
    return groups


def window_pixels(maps: Tensor, picture: Tensor, corner: Tensor, side: int) -> Tensor:
    """Cut windows out of maps ``(B, C, S, S)``; ``(f, C, W, W)``."""
    along = torch.arange(side, device=maps.device)
    rows = (corner[:, 1:] + along)[:, None, :, None]
    columns = (corner[:, :1] + along)[:, None, None, :]
    channels = torch.arange(maps.shape[1], device=maps.device)[None, :, None, None]
    return maps[picture[:, None, None, None], channels, rows, columns]


def fit(
    candidates: Candidates,
    slots: Tensor,
    views: Views,
    atlas: Atlas,
    *,
    num_steps: int,
    tolerance: float,
    reach: float,
) -> tuple[Candidates, Fit]:
    """Move every candidate to where it explains most.

    Args:
        candidates: F of them, roughly in place.
        slots: ``(F,)`` their places in the atlas.
        views: the pictures.
        atlas: the sprites.
        num_steps: of Gauss-Newton; the best place met is kept.
        tolerance: error of a pixel from which it counts as not explained, of a range of 1.
        reach: error from which a pixel rather belongs to another figure than pulls this one; large
            ones find a figure from afar, small ones place it exactly beside others.

    Returns:
        The candidates at their best places, and how well they do there.
    """
    place, best = candidates.place.clone(), candidates.place.clone()
    table = torch.full((len(place), 3), -torch.inf, device=place.device)
    move = torch.zeros_like(place[:, :3])
    for turn in range(num_steps + 1):
        for rows, corner, cut in sprite_windows(place, slots, atlas, views.under.shape[-1]):
            side = cut.shape[-1]
            under, ground, weight = (
                window_pixels(x, candidates.picture[rows], corner, side)
                for x in (views.under, views.ground, views.weight)
            )
            rest = under - cut[:, :3] - (1 - cut[:, 3:]) * ground
            scores = _measure(rest, under - ground, weight, cut[:, 3:], tolerance, reach)
            is_better = (scores[:, 0] > table[rows, 0])[:, None]
            if turn < num_steps:  # where it went too far, half of the way is tried
                step = _step(cut, ground, rest, weight, corner, place[rows], reach)
                move[rows] = torch.where(is_better, step, move[rows] / 2)
            table[rows] = torch.where(is_better, scores, table[rows])
            best[rows] = torch.where(is_better, place[rows], best[rows])
        place = best.clone()
        place[:, :2] += move[:, :2]
        place[:, 2] *= move[:, 2].exp()
    moved = Candidates(candidates.picture, candidates.look, best)
    return moved, Fit(*table.unbind(1))


def _bounded(error: Tensor, reach: float) -> Tensor:
    """Squared error of pixels ``(f, 1, W, W)`` that does not grow far beyond ``reach``."""
    square = error.square().sum(1, keepdim=True)
    return square / (1 + square / reach**2)


def _measure(
    rest: Tensor, before: Tensor, weight: Tensor, alpha: Tensor, tolerance: float, reach: float
) -> Tensor:
    """Score, share of visible pixels not explained, share visible; ``(f, 3)``."""
    inside = weight * (alpha > OUTLINE)
    explained = (inside * _bounded(before, reach)).sum((1, 2, 3))
    left = (inside * _bounded(rest, reach)).sum((1, 2, 3))
    covered = (alpha > 0.3).float()
    visible = covered * (weight > 0.1)
    is_wrong = rest.abs().amax(1, keepdim=True) > tolerance
    num = visible.sum((1, 2, 3))
    wrong = (visible * is_wrong).sum((1, 2, 3)) / num.clamp(min=1)
    seen = num / covered.sum((1, 2, 3)).clamp(min=1)
    return torch.stack([explained - PENALTY * left, wrong, seen], 1)


def _step(
    cut: Tensor,
    ground: Tensor,
    rest: Tensor,
    weight: Tensor,
    corner: Tensor,
    place: Tensor,
    reach: float,
) -> Tensor:
    """One damped Gauss-Newton step of x, y and the logarithm of the size; ``(f, 3)``."""
    side = cut.shape[-1]
    aside, down = cut.new_zeros(2, len(cut), 3, side, side)
    for slope, ahead, behind in (
        (aside[..., 1:-1], cut[..., 2:], cut[..., :-2]),
        (down[..., 1:-1, :], cut[..., 2:, :], cut[..., :-2, :]),
    ):
        slope.copy_((ahead[:, :3] - behind[:, :3]) / 2)
    aside[..., 1:-1] -= (cut[:, 3:, :, 2:] - cut[:, 3:, :, :-2]) / 2 * ground[..., 1:-1]
    down[..., 1:-1, :] -= (cut[:, 3:, 2:] - cut[:, 3:, :-2]) / 2 * ground[..., 1:-1, :]
    along = torch.arange(side, device=cut.device) + 0.5
    x = (corner[:, :1] + along - place[:, :1])[:, None, None, :]
    y = (corner[:, 1:] + along - place[:, 1:2])[:, None, :, None]
    slopes = [aside, down, x * aside + y * down]
    jacobian = -torch.stack([slope.flatten(1) for slope in slopes], 1)  # (f, 3, 3 W W)
    trust = weight / (1 + rest.square().sum(1, keepdim=True) / reach**2).square()
    weighted = jacobian * trust.expand(-1, 3, -1, -1).flatten(1)[:, None]
    normal = weighted @ jacobian.transpose(1, 2)  # (f, 3, 3)
    target = (weighted @ rest.flatten(1)[..., None])[..., 0]
    damping = _DAMPING * normal.diagonal(dim1=1, dim2=2) + 1e-6
    solved = torch.linalg.solve(normal + torch.diag_embed(damping), target)
    unit = place[:, 2:3] * UNIT
    scale = torch.cat([unit, unit, torch.ones_like(unit)], 1)
    return solved.clamp(-_LONGEST * scale, _LONGEST * scale)
