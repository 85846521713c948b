"""The parser: what a picture shows, found by drawing it again, without any learned weight.

It knows the world's backdrops and sprites. It picks the backdrop, then, from the front to the back,
the look, place and size that redraw what is not backdrop, and takes each figure off the picture.
What is left over says whether it may be believed: a picture that its answer does not redraw is
refused. So it audits the detector, which can be fooled by pixels chosen against it.

Shapes: B pictures, S side of a picture, F figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from unimm.data.world.art import UNIT
from unimm.data.world.atlas import Atlas
from unimm.data.world.render import Renderer, backdrops
from unimm.data.world.scene import STYLES
from unimm.judges.parser_backdrop import pick_backdrop
from unimm.judges.parser_fit import Candidates, Fit, Views, fit, sprite_windows
from unimm.judges.parser_scene import Found, redraw, sighting_of
from unimm.judges.parser_search import NEAR, WIDE, Grid, find_anchors, leave_out, propose
from unimm.judges.parser_templates import Templates, all_looks
from unimm.judges.sightings import Sighting

SIZES = (64, 128)
_SHAPES = [(size, size) for size in SIZES]
_DOUBTFUL = 4  # times as much may be wrong of a figure whose feet are hidden
_REACH = (0.4, 0.2, 0.08)  # of the fits, one after another
_LARGE = 40  # pixels of a figure's height
_LEAST_SEEN = 0.1  # of a figure when it is taken
_HOPELESS = 0.5  # share of a picture's pixels: with more unexplained, a second look finds no more
_LEAST_SHOWN = 0.2  # of a figure, in the end
_CLEAR = 0.3  # least share of what lies under a figure's pixel that tells its colour


@dataclass(frozen=True, kw_only=True)
class ParserConfig:
    """What counts as explained; the defaults are for clean renders.

    Attributes:
        styles: arts that are looked for.
        threshold: difference to the backdrop from which a pixel is foreground, of a range of 1.
        tolerance: error of a pixel from which it is not explained.
        most_wrong: share of a figure's pixels that may be unexplained.
        most_residual: share of the picture's pixels that may be, before it is refused.
        max_turns: after which what is not found yet stays so.
        num_looks: looks fitted at each anchor, roughly.
        num_finalists: of those, how many are fitted at full size.
        thorough: by how much more looks and finalists a picture is looked at again that the first
            look did not explain.
    """

    styles: tuple[str, ...] = STYLES
    threshold: float = 0.016
    tolerance: float = 0.06
    most_wrong: float = 0.1
    most_residual: float = 0.02
    max_turns: int = 12
    num_looks: int = 10
    num_finalists: int = 2
    thorough: int = 4


class Parsing(NamedTuple):
    """The parser's answer for one picture.

    Attributes:
        sighting: background and figures, as the detector gives them.
        residual: share of pixels that the answer, drawn again, gets wrong.
        is_explained: whether that is little enough to believe it.
    """

    sighting: Sighting
    residual: float
    is_explained: bool


class Parser:
    """The analytic judge of clean pictures of the world.

    Composing all looks takes some seconds a style, once.

    Args:
        config: thresholds.
        device: where pictures are parsed.
    """

    def __init__(
        self, config: ParserConfig | None = None, *, device: torch.device | str = "cpu"
    ) -> None:
        self.config = config or ParserConfig()
        self.device = torch.device(device)
        self._atlas = Atlas(self.device)
        self._renderer = Renderer(device=device)
        self._templates = [Templates(all_looks((x,)), self._atlas) for x in self.config.styles]

    @torch.no_grad()
    def parse(self, pixels: Tensor, *, batch_size: int = 64) -> list[Parsing]:
        """Explain pictures.

        Args:
            pixels: ``(B, 3, S, S)`` float in [-1, 1], S one of ``SIZES``.
            batch_size: pictures at once.

        Raises:
            ValueError: pixels of another shape, type or range.
        """
        _check_pixels(pixels)
        answers: list[Parsing] = []
        for part in pixels.split(batch_size):
            pictures = ((part.to(self.device) + 1) / 2).float().clamp(0, 1)
            said = self._parse_any(pictures, thorough=1)
            doubtful = [
                b
                for b, one in enumerate(said)
                if not one.is_explained and one.residual <= _HOPELESS
            ]
            if doubtful:
                again = self._parse_any(pictures[doubtful], thorough=self.config.thorough)
                for b, one in zip(doubtful, again, strict=True):
                    said[b] = min(said[b], one, key=lambda x: x.residual)
            answers += said
        return answers

    def _parse_any(self, pictures: Tensor, *, thorough: int) -> list[Parsing]:
        """Explain pictures, each by the art that leaves least over.

        One art draws a picture; another one's look-alikes would only be in the way.
        """
        each = [self._parse(pictures, x, thorough) for x in self._templates]
        return [min(said, key=lambda x: x.residual) for said in zip(*each, strict=True)]

    def _parse(self, pictures: Tensor, templates: Templates, thorough: int) -> list[Parsing]:
        every = self._backdrops(pictures.shape[-1])
        backdrop = pick_backdrop(pictures, every)  # (B,)
        ground = every[backdrop]
        views = Views(pictures.clone(), ground, torch.ones_like(pictures[:, :1]))
        found: list[list[Found]] = [[] for _ in pictures]
        is_open = torch.ones(len(pictures), dtype=torch.bool, device=self.device)
        for _ in range(self.config.max_turns):
            picture, point = find_anchors(views, threshold=self.config.threshold)
            keep = is_open[picture]
            picture, point = picture[keep], point[keep]
            if not len(picture):
                break
            near = self._explain(picture, point, views, NEAR, templates, thorough)
            taken = _unrivalled(*near, self.config.most_wrong)
            is_stuck = is_open.clone()
            is_stuck[taken.picture] = False
            retry = is_stuck[picture]
            if retry.any():  # feet are hidden, or it is no figure: one at a time
                at = picture[retry], point[retry]
                wide = self._explain(*at, views, WIDE, templates, thorough)
                late = [(x[is_stuck[x.picture]], is_stuck[x.picture], y) for x, y in (near, wide)]
                both = Candidates.join([x for x, _, _ in late])
                scores = Fit.join([y[rows] for _, rows, y in late])
                best = _unrivalled(both, scores, _DOUBTFUL * self.config.most_wrong, most=1)
                taken = Candidates.join([taken, best])
            has_some = torch.tensor([bool(figures) for figures in found], device=self.device)
            is_closed = is_open & has_some
            is_closed[taken.picture] = False
            leave_out(picture, point, is_closed, views)
            is_open = is_closed
            is_open[taken.picture] = True
            self._take_off(taken, views, templates)
            for b, look, place in zip(
                taken.picture.tolist(), taken.look.tolist(), taken.place.tolist(), strict=True
            ):
                found[b].append(Found(templates.figures[look], *place))
        return self._answer(pictures, backdrop, found)

    def _backdrops(self, size: int) -> Tensor:
        """All backdrops, ``(96, 3, size, size)`` in 0..1."""
        return backdrops(size).to(self.device).float() / 255

    def _explain(
        self,
        picture: Tensor,
        point: Tensor,
        views: Views,
        grid: Grid,
        templates: Templates,
        thorough: int,
    ) -> tuple[Candidates, Fit]:
        """The figure that explains most at each anchor, and how well it does."""
        num, last = thorough * self.config.num_looks, thorough * self.config.num_finalists
        all_of = propose(picture, point, views, templates, grid=grid, num_looks=num)
        rough, scores = self._fit_rough(all_of, views, templates)
        best = scores.score.view(-1, num).topk(last, dim=1).indices
        best = (best + num * torch.arange(len(best), device=best.device)[:, None]).flatten()
        # Some looks are nearly their own mirror images: both ways are fitted exactly.
        both = rough[best.repeat_interleave(2)]
        both.place[1::2, 3] *= -1
        finalists, _ = self._fit(both, views, templates, num_steps=3, reach=_REACH[1])
        finalists, scores = self._fit(finalists, views, templates, num_steps=4, reach=_REACH[2])
        first = scores.score.view(-1, 2 * last).argmax(1)
        first = first + 2 * last * torch.arange(len(first), device=first.device)
        return finalists[first], scores[first]

    def _fit_rough(
        self, candidates: Candidates, views: Views, templates: Templates
    ) -> tuple[Candidates, Fit]:
        """Fit large figures at half size: it is faster, and they are found from farther away."""
        half = Views(*(avg_pool2d(x, 2) for x in (views.under, views.ground, views.weight)))
        is_large = candidates.place[:, 2] * UNIT > _LARGE
        place = candidates.place.clone()
        table = place.new_zeros(len(place), 3)
        for rows, factor, seen in ((is_large, 0.5, half), (~is_large, 1.0, views)):
            moved, scores = self._fit(
                _scaled(candidates[rows], factor), seen, templates, num_steps=4, reach=_REACH[0]
            )
            place[rows] = _scaled(moved, 1 / factor).place
            table[rows] = torch.stack(list(vars(scores).values()), 1)
            table[rows, 0] /= factor**2  # four pixels are one at half size
        return Candidates(candidates.picture, candidates.look, place), Fit(*table.unbind(1))

    def _fit(
        self,
        candidates: Candidates,
        views: Views,
        templates: Templates,
        *,
        num_steps: int,
        reach: float,
    ) -> tuple[Candidates, Fit]:
        return fit(
            candidates,
            templates.slots[candidates.look],
            views,
            self._atlas,
            num_steps=num_steps,
            tolerance=self.config.tolerance,
            reach=reach,
        )

    def _take_off(self, taken: Candidates, views: Views, templates: Templates) -> None:
        """Take figures off the pictures: what they hide stays unknown, in place."""
        size = views.under.shape[-1]
        for rows, corner, cut in sprite_windows(
            taken.place, templates.slots[taken.look], self._atlas, size
        ):
            for f, (left, top) in enumerate(corner.tolist()):
                b, side = int(taken.picture[rows[f]]), cut.shape[-1]
                window = (b, slice(None), slice(top, top + side), slice(left, left + side))
                under, ground = views.under[window], views.ground[window]
                keep = 1 - cut[f, 3:]
                drawn = cut[f, :3] + keep * ground
                below = ((under - cut[f, :3]) / keep.clamp(min=_CLEAR)).clamp(0, 1)
                is_clear = keep > _CLEAR
                # What it does not explain belongs to a figure before it.
                is_before = (under - drawn).abs().amax(0) > self.config.tolerance
                is_before = is_before & (keep < 0.5)
                views.under[window] = torch.where(
                    is_before, under, torch.where(is_clear, below, ground)
                )
                views.weight[window] *= torch.where(is_before, 1.0, keep.square() * is_clear)
                views.ground[window] = torch.where(is_before, drawn, ground)

    def _answer(
        self, pictures: Tensor, backdrop: Tensor, found: list[list[Found]]
    ) -> list[Parsing]:
        """Draw what was found again, compare, and say it in words."""
        numbers, size = backdrop.tolist(), pictures.shape[-1]
        render = redraw(numbers, found, self._renderer, size)
        assert render.visibility is not None
        # Specks left between others can be explained by a figure hidden behind them: do without.
        shown = [
            [one for k, one in enumerate(figures) if seen[k] >= _LEAST_SHOWN]
            for figures, seen in zip(found, render.visibility.tolist(), strict=True)
        ]
        if shown != found:
            render = redraw(numbers, shown, self._renderer, size)
        assert render.boxes is not None
        boxes = render.boxes
        differs = (render.rgb / 255 - pictures).abs().amax(1) > self.config.tolerance
        residual = differs.float().mean((1, 2)).tolist()
        return [
            Parsing(
                sighting_of(numbers[b], shown[b], boxes[b], size),
                residual[b],
                residual[b] <= self.config.most_residual,
            )
            for b in range(len(pictures))
        ]


def _scaled(candidates: Candidates, factor: float) -> Candidates:
    """The same places in pictures of another size."""
    scale = candidates.place.new_tensor([factor, factor, factor, 1])
    return Candidates(candidates.picture, candidates.look, candidates.place * scale)


def _unrivalled(found: Candidates, scores: Fit, most_wrong: float, most: int = 9) -> Candidates:
    """Those that explain what they cover and do not stand where a better one of them stands.

    Args:
        found: candidates.
        scores: of them.
        most_wrong: share of a figure that may be unexplained.
        most: how many a picture, the best first.
    """
    picture, place = found.picture.tolist(), found.place.tolist()
    is_good = ((scores.wrong <= most_wrong) & (scores.seen >= _LEAST_SEEN)).tolist()
    kept: list[int] = []
    for k in scores.wrong.argsort().tolist():
        rivals = [j for j in kept if picture[j] == picture[k]]
        is_free = len(rivals) < most and all(_apart(place[j], place[k]) for j in rivals)
        if is_good[k] and is_free:
            kept.append(k)
    return found[torch.tensor(kept, dtype=torch.long, device=found.picture.device)]


def _apart(first: Sequence[float], second: Sequence[float]) -> bool:
    """Whether two figures surely do not cover each other: else one waits for the next turn."""
    reach = 0.5 * UNIT * (first[2] + second[2])
    return abs(first[0] - second[0]) > reach or abs(first[1] - second[1]) > 1.4 * reach


def _check_pixels(pixels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3 or tuple(pixels.shape[2:]) not in _SHAPES:
        raise ValueError(
            f"pixels are {tuple(pixels.shape)}; the parser reads (B, 3, S, S) with S of {SIZES}"
        )
    if not pixels.is_floating_point():
        raise ValueError(f"pixels are {pixels.dtype}; give floats in [-1, 1] (uint8 / 127.5 - 1)")
    if pixels.numel() and float(pixels.abs().amax()) > 1.01:
        raise ValueError(
            f"pixels reach {float(pixels.abs().amax()):g}, but must lie in [-1, 1]; "
            "uint8 / 127.5 - 1 gives that range"
        )
