"""The detector: which figures a picture shows, where, and what each of them looks like.

A small CenterNet (Zhou et al., 2019, "Objects as Points"): a map of figure centres at a quarter of
the picture's size, boxes read at its peaks, and attributes read from a grid of points inside each
box. It is trained on renders, where the truth is known.

Legend: ``B`` pictures, ``H, W`` their size, ``h, w`` a quarter of it, ``G`` groups (characters and
objects), ``C`` channels, ``F`` figures of a picture, ``V`` words of all attributes together.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.data.world.scene import BACKGROUNDS
from unimm.judges.labels import GROUPS, NUM_SPECIES, VOCABULARY, words_of
from unimm.judges.sightings import Detection, Sighting

STRIDE = 4  # pixels a side behind one cell of the heat map
_SIZES = tuple(len(words) for words in VOCABULARY.values())
_NUM_KINDS = len(VOCABULARY["kind"])
_BARE = _NUM_KINDS + len(VOCABULARY["tint"])  # "no headwear" among all words
_STYLE = list(VOCABULARY).index("style")
_HEADWEAR_END = _BARE + len(VOCABULARY["headwear"])


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Sizes of a detector.

    Attributes:
        image_size: side of the pictures it was trained on; others are resized to it.
        channels: of the feature maps at 1/2, 1/4, 1/8 and 1/16 of the picture's size.
        grid_size: points a side at which a box is read.
        hidden: width of the layer that reads attributes.
        threshold: height of a peak from which it is a figure.
        max_figures: of one picture.
        max_overlap: two boxes of one group that share more than this (intersection over union)
            are one figure seen twice.
    """

    image_size: int = 128
    channels: tuple[int, int, int, int] = (32, 64, 80, 112)
    grid_size: int = 5
    hidden: int = 128
    threshold: float = 0.3
    max_figures: int = 12
    max_overlap: float = 0.7


class FeatureMaps(NamedTuple):
    """What the network computes once a picture.

    Attributes:
        heat: ``(B, G, h, w)`` logits of figure centres.
        box: ``(B, 4 G, h, w)``: offset x, y of the centre in cells, log width, log height (in
            cells) of each group.
        features: ``(B, C, h, w)`` that attributes are read from.
        background: ``(B, number of backgrounds)`` logits.
    """

    heat: Tensor
    box: Tensor
    features: Tensor
    background: Tensor


class _Block(nn.Module):
    """Residual block of two 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.silu(self.norms[0](self.first(x)))
        return functional.silu(x + self.norms[1](self.second(hidden)))


def _down(inputs: int, outputs: int) -> nn.Sequential:
    """Halve the map: 3x3 convolution of stride 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


class _Merge(nn.Module):
    """Bring a coarse map to the size of a finer one and add the two."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(coarse, fine, 1, bias=False)
        self.convolve = nn.Sequential(
            nn.Conv2d(fine, fine, 3, padding=1, bias=False), nn.BatchNorm2d(fine), nn.SiLU()
        )

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        wide = functional.interpolate(self.project(coarse), scale_factor=2.0, mode="nearest")
        return self.convolve(fine + wide)


class Detector(nn.Module):
    """The judge of pictures; under a million parameters.

    Args:
        config: sizes.
    """

    def __init__(self, config: DetectorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or DetectorConfig()
        c2, c4, c8, c16 = config.channels
        self.stem = _down(3, c2)
        self.down4 = nn.Sequential(_down(c2, c4), _Block(c4))
        self.down8 = nn.Sequential(_down(c4, c8), _Block(c8))
        self.down16 = nn.Sequential(_down(c8, c16), _Block(c16))
        self.merge8, self.merge4 = _Merge(c16, c8), _Merge(c8, c4)
        self.features = nn.Sequential(nn.Conv2d(c4, c4, 3, padding=1), nn.SiLU())
        self.heat_head = nn.Conv2d(c4, len(GROUPS), 1)
        self.box_head = nn.Conv2d(c4, 4 * len(GROUPS), 1)
        self.background_head = nn.Linear(c16, len(BACKGROUNDS))
        num_inputs = c4 * config.grid_size**2 + len(GROUPS) + 4
        self.reader = nn.Sequential(
            nn.Linear(num_inputs, config.hidden), nn.SiLU(), nn.Linear(config.hidden, sum(_SIZES))
        )
        nn.init.zeros_(self.heat_head.weight)
        nn.init.zeros_(self.box_head.weight)
        with torch.no_grad():
            assert self.heat_head.bias is not None and self.box_head.bias is not None
            self.heat_head.bias.fill_(-4.6)  # a middle is rare: 1 cell in 100 at the start
            self.box_head.bias.copy_(torch.tensor([0.5, 0.5, 2.3, 2.3] * len(GROUPS)))

    def forward(self, pixels: Tensor) -> FeatureMaps:
        """Compute the maps.

        Args:
            pixels: ``(B, 3, H, W)`` float in [-1, 1]; both sides multiples of 16.
        """
        at4 = self.down4(self.stem(pixels))  # (B, c4, h, w)
        at8 = self.down8(at4)
        at16 = self.down16(at8)
        features = self.features(self.merge4(self.merge8(at16, at8), at4))  # (B, c4, h, w)
        return FeatureMaps(
            heat=self.heat_head(features),
            box=self.box_head(features),
            features=features,
            background=self.background_head(at16.mean(dim=(2, 3))),
        )

    def read_attributes(self, features: Tensor, boxes: Tensor, group: Tensor) -> Tensor:
        """Say what the figures in given boxes look like.

        Args:
            features: ``(B, C, h, w)`` of ``forward``.
            boxes: ``(B, F, 4)`` left, top, right, bottom as fractions.
            group: ``(B, F)`` int64: 0 a character, 1 an object.

        Returns:
            ``(B, F, V)`` float32 logits; -inf where they cannot be: kinds of the other group, and
            headwear on an object.
        """
        num = self.config.grid_size  # the middles of so many cells a side, -1 and 1 the edges
        grid = (2 * torch.arange(num, device=boxes.device) + 1) / num - 1
        steps = torch.stack(torch.meshgrid(grid, grid, indexing="xy"), dim=-1).flatten(0, 1)
        middle, half = (boxes[..., :2] + boxes[..., 2:]) / 2, (boxes[..., 2:] - boxes[..., :2]) / 2
        points = middle[:, :, None] + half[:, :, None] * steps  # (B, F, points, 2) in 0..1
        read = functional.grid_sample(
            features.float(), points * 2 - 1, align_corners=False, padding_mode="border"
        )  # (B, C, F, points)
        read = read.permute(0, 2, 3, 1).flatten(2)
        one_hot = functional.one_hot(group, len(GROUPS)).to(read.dtype)
        logits = self.reader(torch.cat([read, one_hot, middle, half], dim=-1)).float()
        word = torch.arange(logits.shape[-1], device=logits.device)
        is_object = group[..., None] == 1
        is_impossible = (word < _NUM_KINDS) & ((word < NUM_SPECIES) == is_object)
        is_impossible |= is_object & (word > _BARE) & (word < _HEADWEAR_END)
        return logits.masked_fill(is_impossible, -torch.inf)

    @torch.no_grad()
    def detect(self, pixels: Tensor) -> list[list[Detection]]:
        """Find the figures of pictures, the surest first.

        Args:
            pixels: ``(B, 3, H, H)`` float in [-1, 1] on the detector's device. A size other than
                the trained one is resized to it.

        Returns:
            One list a picture.

        Raises:
            ValueError: pixels of another shape, type, or range.
        """
        return [sighting.detections for sighting in self.describe(pixels)]

    @torch.no_grad()
    def describe(self, pixels: Tensor) -> list[Sighting]:
        """Find the figures and name the background of pictures; see ``detect``."""
        _check_pixels(pixels)
        if self.training:
            raise ValueError("the detector is in training mode; call eval() before judging")
        size = self.config.image_size
        if pixels.shape[-1] != size:
            pixels = functional.interpolate(
                pixels.float(), size=(size, size), mode="bilinear", antialias=True
            )
        maps = self(pixels.to(self.heat_head.weight.dtype))
        score, boxes, group = _peaks(maps, self.config.max_figures)
        words = self.read_attributes(maps.features, boxes, group)  # (B, K, V)
        keep = _keep(score, boxes, group, self.config)
        splits = [*words.split(_SIZES, dim=-1)]
        splits[_STYLE] = _agreed(splits[_STYLE], keep)
        labels = torch.stack([part.argmax(-1) for part in splits], dim=-1).tolist()
        probabilities = torch.cat([part.softmax(-1) for part in splits], dim=-1).cpu().numpy()
        scores, corners, kept = score.tolist(), boxes.tolist(), keep.tolist()
        backgrounds = maps.background.argmax(-1).tolist()
        return [
            Sighting(
                BACKGROUNDS[backgrounds[b]],
                [
                    Detection(
                        **words_of(labels[b][k]),
                        box=tuple(corners[b][k]),
                        score=scores[b][k],
                        probabilities=probabilities[b, k],
                    )
                    for k in range(len(scores[b]))
                    if kept[b][k]
                ],
            )
            for b in range(len(scores))
        ]


def split_attributes(logits: Tensor) -> tuple[Tensor, ...]:
    """Cut ``(..., V)`` into one tensor an attribute, in the order of ``ATTRIBUTES``."""
    return logits.split(_SIZES, dim=-1)


def _peaks(maps: FeatureMaps, num: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``num`` highest local maxima: score ``(B, K)``, boxes ``(B, K, 4)``, group ``(B, K)``."""
    heat = maps.heat.float().sigmoid()
    batch, _, height, width = heat.shape
    is_peak = functional.max_pool2d(heat, 3, stride=1, padding=1) == heat
    score, index = (heat * is_peak).flatten(1).topk(num)  # (B, K)
    group, cell = index // (height * width), index % (height * width)
    row, column = cell // width, cell % width
    box = maps.box.float().view(batch, len(GROUPS), 4, height * width).transpose(2, 3).flatten(1, 2)
    picked = box.gather(1, index[..., None].expand(-1, -1, 4))  # (B, K, 4)
    size = picked.new_tensor([width, height])
    middle = (torch.stack([column, row], dim=-1) + picked[..., :2]) / size
    half = picked[..., 2:].exp() / size / 2
    return score, torch.cat([middle - half, middle + half], dim=-1).clamp(0, 1), group


def _keep(score: Tensor, boxes: Tensor, group: Tensor, config: DetectorConfig) -> Tensor:
    """Which peaks are figures ``(B, K)``: high enough, and not a second sight of a surer one."""
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)  # (B, K, K)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    overlap = shared / (area[:, :, None] + area[:, None, :] - shared).clamp(min=1e-9)
    is_same = (overlap > config.max_overlap) & (group[:, :, None] == group[:, None, :])
    keep = score >= config.threshold
    for k in range(1, score.shape[1]):  # peaks are sorted: a later one yields
        keep[:, k] &= ~(is_same[:, k, :k] & keep[:, :k]).any(-1)
    return keep


def _agreed(style: Tensor, keep: Tensor) -> Tensor:
    """One art for a whole picture: what all its figures say together, ``(B, K, styles)``.

    Every scene of the world is drawn in one art, and a far figure alone hardly shows which: its
    flat and its shaded sprite share their outline.
    """
    said = style.log_softmax(-1) * keep[..., None]
    return said.sum(1, keepdim=True).expand_as(style)


def _check_pixels(pixels: Tensor) -> None:
    if pixels.ndim != 4 or pixels.shape[1] != 3 or pixels.shape[2] != pixels.shape[3]:
        raise ValueError(
            f"pixels must be (B, 3, H, H), got {tuple(pixels.shape)}; put channels first, drop "
            "alpha, and crop or pad to a square"
        )
    if not pixels.is_floating_point():
        raise ValueError(f"pixels are {pixels.dtype}; give floats in [-1, 1] (uint8 / 127.5 - 1)")
    if pixels.numel() and not (pixels.amin() >= -1.01 and pixels.amax() <= 1.01):
        raise ValueError(
            f"pixels go from {pixels.amin().item():g} to {pixels.amax().item():g}, but must lie in "
            "[-1, 1]; uint8 / 127.5 - 1 gives that range"
        )
