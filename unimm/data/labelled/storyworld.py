"""Storyworld as a labelled set: classes, exact depth, regions and keypoints, all rendered.

Training pictures show training's combinations; validation and test the same combinations from
other seeds, or, if asked for, held-out ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unimm.data.labelled.sets import LabelledConfig, LabelledPictures, LabelledSplits
from unimm.data.world.captions import sample_caption_scene
from unimm.data.world.compose import compose
from unimm.data.world.figures import sample_character, sample_object
from unimm.data.world.render import FAR, Render, Renderer
from unimm.data.world.scene import (
    BACKGROUNDS,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    Figure,
    Scene,
    sample_rng,
)
from unimm.data.world.splits import Split
from unimm.data.world.words import indefinite, noun_phrase

OBJECT_KINDS = tuple(OBJECTS)
KINDS: tuple[str, ...] = (*SPECIES, *OBJECT_KINDS)
Scenes = Literal["single", "objects", "binding", "mixed", "pairs"]
Label = Literal["kind", "tint", "background"]
_CLASSES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "tint": OBJECT_TINTS,
    "background": BACKGROUNDS,
}
_CHUNK = 64
_NEAR = 0.5  # nothing stands nearer, in scene units


@dataclass(frozen=True, kw_only=True)
class StoryworldConfig(LabelledConfig):
    """Rendered scenes.

    Attributes:
        scenes: ``single`` things, of each kind alike; ``objects``, the same without characters;
            ``binding``, two objects of two colours, whose candidates are the right text and the one
            with the colours swapped; ``mixed``, as captions show them; ``pairs`` of pictures of one
            kind that differ in all else.
        label: what a picture's class is: of the thing that is named first.
        is_heldout: test on combinations that training never shows.
        num_workers: processes that sample scenes.
    """

    name: ClassVar[str] = "storyworld"

    scenes: Scenes = "single"
    label: Label = "kind"
    is_heldout: bool = False
    seed: int = 9001
    num_workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenes == "pairs" and any(
            n % 2 for n in (self.num_train, self.num_validation, self.num_test)
        ):
            raise ValueError("pairs need even numbers of pictures")

    def read(self, device: torch.device) -> LabelledSplits:
        """Sample and render."""
        renderer = Renderer(device=device)
        test = Split.HELDOUT if self.is_heldout else Split.VALIDATION
        parts: list[LabelledPictures] = []
        first = 0
        for split, count in (
            (Split.TRAIN, self.num_train),
            (Split.VALIDATION, self.num_validation),
            (test, self.num_test),
        ):
            scenes = self._sample(split, count, first)
            parts.append(self._render(scenes, renderer))
            first += count  # no scene number is used twice
        what = self.scenes + (", held out" if self.is_heldout else "")
        return LabelledSplits(
            name=f"storyworld ({what})",
            train=parts[0],
            validation=parts[1],
            test=parts[2],
            classes=OBJECT_KINDS
            if self.scenes == "objects" and self.label == "kind"
            else _CLASSES[self.label],
            pixel_classes=("backdrop", *KINDS),
            depth_range=(_NEAR, FAR),
        )

    def _sample(self, split: Split, count: int, first: int) -> list[Scene]:
        make = partial(_SAMPLERS[self.scenes], self.seed, split)
        loader = DataLoader(
            _SceneChunks(make, first, count),
            batch_size=None,
            num_workers=self.num_workers,
            collate_fn=_as_is,
        )
        return [scene for chunk in loader for scene in chunk]

    def _render(self, scenes: Sequence[Scene], renderer: Renderer) -> LabelledPictures:
        size = self.image_size
        renderer.prepare(scenes, num_workers=self.num_workers)
        drawn = [
            _on_cpu(renderer.render(scenes[i : i + 256], size=size), scenes[i : i + 256])
            for i in range(0, len(scenes), 256)
        ]
        pairs = torch.arange(len(scenes)).view(-1, 2) if self.scenes == "pairs" else None
        joined: dict[str, Any] = {
            name: torch.cat([part[name] for part in drawn]) for name in drawn[0]
        }
        truths = [_truth(scene, self.scenes, self.label) for scene in scenes]
        return LabelledPictures(
            labels=torch.tensor([label for label, _ in truths]),
            candidates=tuple(texts for _, texts in truths if texts),
            pairs=pairs,
            **joined,
        )


def _truth(scene: Scene, scenes: Scenes, what: Label) -> tuple[int, tuple[str, ...]]:
    """A picture's class, and texts of which the one of that number is right."""
    figures = [placed.figure for placed in scene.placed]
    if scenes == "binding":
        first, second = figures
        swapped = [replace(first, tint=second.tint), replace(second, tint=first.tint)]
        texts = [
            " and ".join(indefinite(noun_phrase(figure)) for figure in pair)
            for pair in (figures, swapped)
        ]
        right = int(first.kind < second.kind)  # neither place is favoured
        return right, (texts[0], texts[1]) if right == 0 else (texts[1], texts[0])
    label = _label(figures[0], scene, what)
    if scenes != "objects" or what == "background":
        return label, ()
    if what == "tint":
        looks = [replace(figures[0], tint=tint) for tint in OBJECT_TINTS]
    else:
        label = OBJECT_KINDS.index(figures[0].kind)
        looks = [replace(figures[0], kind=kind) for kind in OBJECT_KINDS]
    return label, tuple(indefinite(noun_phrase(look)) for look in looks)


def _label(figure: Figure, scene: Scene, what: Label) -> int:
    word = {"kind": figure.kind, "tint": figure.tint, "background": scene.background}[what]
    return _CLASSES[what].index(word)


def _on_cpu(drawn: Render, scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """What a set keeps of a render; points and boxes are those of the first figure."""
    assert drawn.depth is not None and drawn.validity is not None and drawn.ids is not None
    assert drawn.keypoints is not None and drawn.is_keypoint_seen is not None
    assert drawn.boxes is not None
    most = max(len(scene.placed) for scene in scenes)
    classes = torch.zeros(len(scenes), most + 1, dtype=torch.int16)  # 0 is the backdrop
    for i, scene in enumerate(scenes):
        for j, placed in enumerate(scene.placed):
            classes[i, j + 1] = 1 + KINDS.index(placed.figure.kind)
    ids = drawn.ids.cpu().long()
    return {
        "pixels": drawn.rgb.cpu(),
        "depth": drawn.depth.cpu(),
        "has_depth": drawn.validity.cpu(),
        "class_map": classes.gather(1, ids.flatten(1)).view_as(ids),
        "keypoints": drawn.keypoints[:, 0].cpu(),
        "is_visible": drawn.is_keypoint_seen[:, 0].cpu(),
        "boxes": drawn.boxes[:, 0].cpu(),
    }


class _SceneChunks(Dataset[list[Scene]]):
    """Scenes by number, in chunks, so that any number of workers gives the same."""

    def __init__(self, make: partial, first: int, count: int) -> None:
        self.make, self.first, self.count = make, first, count

    def __len__(self) -> int:
        return -(-self.count // _CHUNK)

    def __getitem__(self, index: int) -> list[Scene]:
        start = index * _CHUNK
        numbers = range(start, min(start + _CHUNK, self.count))
        return [self.make(self.first + i) for i in numbers]


def _as_is(chunk: list[Scene]) -> list[Scene]:
    return chunk


def _single(seed: int, split: Split, index: int) -> Scene:
    """One thing; kinds take turns, so that all are as frequent."""
    rng = sample_rng(seed, split, index)
    return _alone(rng, split, KINDS[index % len(KINDS)])


def _mixed(seed: int, split: Split, index: int) -> Scene:
    """A scene as captions of training show it."""
    return sample_caption_scene(sample_rng(seed, split, index), split).scene


def _object(seed: int, split: Split, index: int) -> Scene:
    """One object; kinds take turns."""
    rng = sample_rng(seed, split, index)
    return _alone(rng, split, OBJECT_KINDS[index % len(OBJECT_KINDS)])


def _binding(seed: int, split: Split, index: int) -> Scene:
    """Two objects of two colours."""
    rng = sample_rng(seed, split, index)
    return sample_caption_scene(rng, split, task="colour_binding", level="short").scene


def _paired(seed: int, split: Split, index: int) -> Scene:
    """Scenes 2i and 2i + 1 show one kind."""
    rng = sample_rng(seed, split, index)
    return _alone(rng, split, KINDS[(index // 2) % len(KINDS)])


def _alone(rng: np.random.Generator, split: Split, kind: str) -> Scene:
    if kind in SPECIES:
        figure = sample_character(rng, split, species=kind)
    else:
        figure = sample_object(rng, split, kinds=(kind,))
    return compose(rng, split, [figure])


_SAMPLERS = {
    "single": _single,
    "objects": _object,
    "binding": _binding,
    "mixed": _mixed,
    "pairs": _paired,
}
