"""The scene: what a Storyworld picture shows, as plain data that a renderer draws exactly.

A scene is the ground truth. Pixels, depth, boxes, captions and judges' answers all follow from it.
Coordinates are fractions of the picture (x to the right, y down), so one scene renders at any size.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

NATURAL = "natural"
NO_HEADWEAR = "none"

# Character faces: name -> emoji hex code (the art pack is built from these).
SPECIES: dict[str, str] = {
    "fox": "1f98a",
    "cat": "1f431",
    "dog": "1f436",
    "bear": "1f43b",
    "panda": "1f43c",
    "koala": "1f428",
    "tiger": "1f42f",
    "lion": "1f981",
    "pig": "1f437",
    "frog": "1f438",
    "mouse": "1f42d",
    "rabbit": "1f430",
    "wolf": "1f43a",
    "monkey": "1f435",
    "cow": "1f42e",
    "chicken": "1f414",
}

# What a character may wear on its head; ``none`` is a bare head.
HEADWEAR: dict[str, str] = {
    "crown": "1f451",
    "top hat": "1f3a9",
    "cap": "1f9e2",
    "graduation cap": "1f393",
    "sun hat": "1f452",
}

# Things of the world that are not characters.
OBJECTS: dict[str, str] = {
    "apple": "1f34e",
    "banana": "1f34c",
    "pear": "1f350",
    "strawberry": "1f353",
    "watermelon": "1f349",
    "pineapple": "1f34d",
    "carrot": "1f955",
    "mushroom": "1f344",
    "cake": "1f382",
    "cupcake": "1f9c1",
    "pizza": "1f355",
    "ice cream": "1f366",
    "donut": "1f369",
    "cup": "2615",
    "balloon": "1f388",
    "gift": "1f381",
    "kite": "1fa81",
    "ball": "26bd",
    "teddy bear": "1f9f8",
    "drum": "1f941",
    "guitar": "1f3b8",
    "trumpet": "1f3ba",
    "book": "1f4d5",
    "key": "1f511",
    "lantern": "1f3ee",
    "bell": "1f514",
    "umbrella": "2602",
    "backpack": "1f392",
    "basket": "1f9fa",
    "bucket": "1faa3",
    "clock": "23f0",
    "camera": "1f4f7",
    "magnet": "1f9f2",
    "gem": "1f48e",
    "trophy": "1f3c6",
    "candle": "1f56f",
    "chair": "1fa91",
    "car": "1f697",
    "bus": "1f68c",
    "tractor": "1f69c",
    "bicycle": "1f6b2",
    "scooter": "1f6f4",
    "boat": "26f5",
    "rocket": "1f680",
    "house": "1f3e0",
    "tent": "26fa",
    "tree": "1f333",
    "sprout": "1f331",
    "cactus": "1f335",
    "sunflower": "1f33b",
    "tulip": "1f337",
    "rose": "1f339",
    "butterfly": "1f98b",
    "bee": "1f41d",
    "ladybug": "1f41e",
    "snail": "1f40c",
    "turtle": "1f422",
    "fish": "1f41f",
    "duck": "1f986",
    "owl": "1f989",
    "snowman": "26c4",
    "robot": "1f916",
    "star": "2b50",
    "potted plant": "1fab4",
}

# GenEval's ten colours.
COLOURS: tuple[str, ...] = (
    "red",
    "orange",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
)
OBJECT_TINTS: tuple[str, ...] = (NATURAL, *COLOURS)
# Faces keep their features under these; brown, black and white would hide eyes or look natural.
CHARACTER_TINTS: tuple[str, ...] = (NATURAL, *COLOURS[:7])

BACKGROUNDS: tuple[str, ...] = ("meadow", "desert", "snow", "night", "dusk", "beach")
STYLES: tuple[str, ...] = ("3d", "flat", "noto")
SIZES: tuple[str, ...] = ("small", "medium", "large")
RELATIONS: tuple[str, ...] = ("left of", "right of", "in front of", "behind")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one thing of a scene is, before it has a place.

    Attributes:
        kind: a key of ``SPECIES`` (a character's face) or of ``OBJECTS``.
        tint: ``natural`` or a colour.
        headwear: a key of ``HEADWEAR`` or ``none``; only characters wear any.
        style: the art it is drawn from.
        size: the size word; apparent size also follows from depth.
    """

    kind: str
    tint: str = NATURAL
    headwear: str = NO_HEADWEAR
    style: str = "3d"
    size: str = "medium"

    def __post_init__(self) -> None:
        if self.kind not in SPECIES and self.kind not in OBJECTS:
            raise ValueError(
                f"unknown kind {self.kind!r}; species: {[*SPECIES]}, objects: {[*OBJECTS]}"
            )
        tints = CHARACTER_TINTS if self.is_character else OBJECT_TINTS
        for field, known in (("tint", tints), ("style", STYLES), ("size", SIZES)):
            if getattr(self, field) not in known:
                raise ValueError(
                    f"unknown {field} {getattr(self, field)!r} of a {self.kind}; known: {known}"
                )
        if self.headwear != NO_HEADWEAR and not (self.is_character and self.headwear in HEADWEAR):
            raise ValueError(
                f"a {self.kind} cannot wear {self.headwear!r}; headwear: {[*HEADWEAR]}"
            )

    @property
    def is_character(self) -> bool:
        """Whether it is a face of ``SPECIES``, which can wear headwear and have a name."""
        return self.kind in SPECIES


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A figure with its place: ``x`` is its middle, ``y`` where it stands on the ground."""

    figure: Figure
    x: float
    y: float
    is_flipped: bool = False


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One picture's ground truth.

    Attributes:
        background: one of ``BACKGROUNDS``.
        variant: which of a background's looks (hills, clouds, stars) is drawn.
        horizon: height of the horizon, a fraction from the top.
        camera_height: of the ground plane; depth of a point at ``y`` is
            ``camera_height / (y - horizon)`` in scene units (the pitch of the camera).
        placed: the figures, in the order in which captions name them.
    """

    background: str
    variant: int
    horizon: float
    camera_height: float
    placed: tuple[Placed, ...]

    def __post_init__(self) -> None:
        if self.background not in BACKGROUNDS:
            raise ValueError(f"unknown background {self.background!r}; known: {BACKGROUNDS}")

    def to_json(self) -> str:
        """Canonical JSON: equal scenes give equal strings."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> "Scene":
        """Read a scene that ``to_json`` wrote; unknown or missing fields are errors."""
        raw: dict[str, Any] = json.loads(text)
        placed = tuple(
            Placed(**(item | {"figure": Figure(**item["figure"])})) for item in raw.pop("placed")
        )
        return Scene(placed=placed, **raw)


def sample_rng(seed: int, split: int, index: int) -> np.random.Generator:
    """One stream a sample: worker count and order never change sample ``index``.

    Philox takes a 128-bit key and counts its draws up from the counter's lowest word, so the index
    goes into the highest: streams never overlap (Salmon et al., 2011).
    """
    return np.random.Generator(np.random.Philox(key=[seed, split], counter=[0, 0, 0, index]))
