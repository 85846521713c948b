"""Rendered furniture with exact depth: the 3-D models of Debian's ``sweethome3d-furniture``.

Each picture shows one model on a floor, from a place, in a light and in front of colours of its
own. Sets are parted by model, never by view; a picture's class is the model's category. A library
is a ``.sh3f`` file, a zip of OBJ models with a catalogue. Legend: ``N`` pictures, ``S`` their side,
``T`` triangles.
"""

import math
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import ClassVar, NamedTuple
from zipfile import BadZipFile, ZipFile
from zlib import error as ZlibError

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unimm.data.labelled.obj_mesh import Mesh, read_obj
from unimm.data.labelled.rasterise import Camera, rasterise
from unimm.data.labelled.sets import (
    LabelledConfig,
    LabelledPictures,
    LabelledSplits,
    Skipped,
    existing_folder,
    shuffled,
)

_CATALOGUE = "PluginFurnitureCatalog.properties"
_ENTRY = re.compile(r"^(\w+)#(\d+)\s*=\s*(.*?)\s*$", re.MULTILINE)
_SAMPLES = 3  # a pixel's side has so many; the middle one's depth is the pixel's
_DISTANCES = (2.4, 4.0)  # of the camera, in radii of the model
_ELEVATIONS = (math.radians(8), math.radians(40))
_FAR = 10.0  # the floor ends there; models end before 5
_AMBIENT = 0.45
_SHARES = (0.15, 0.1)  # of the models: test and validation


@dataclass(frozen=True, kw_only=True)
class FurnitureConfig(LabelledConfig):
    """Rendered furniture.

    Attributes:
        folder: of the ``.sh3f`` libraries; all of them are read.
    """

    name: ClassVar[str] = "furniture"

    folder: str = "/usr/share/sweethome3d/furniture"
    num_train: int = 6000
    num_validation: int = 500
    num_test: int = 1000

    def read(self, device: torch.device) -> LabelledSplits:
        """Part the models, and render each of them from several sides."""
        what = "the furniture (apt install sweethome3d-furniture)"
        entries = read_catalogues(existing_folder(self.folder, what))
        classes = tuple(sorted({entry.category for entry in entries}))
        test, validation, train = _parted(shuffled(entries, self.seed))
        render = partial(_render, classes=classes, config=self, device=device)
        return LabelledSplits(
            name=f"furniture ({len(entries)} models)",
            train=render(train, self.num_train, first=0),
            validation=render(validation, self.num_validation, first=len(train)),
            test=render(test, self.num_test, first=len(train) + len(validation)),
            classes=classes,
            pixel_classes=("floor and backdrop", *classes),
            depth_range=(1.0, _FAR),
        )


class Entry(NamedTuple):
    """A model of a catalogue."""

    library: Path
    path: PurePosixPath  # of the OBJ file inside of it
    category: str
    rotation: tuple[float, ...]  # 9 numbers, row after row

    def load(self) -> Mesh:
        """Read the model, turned upright, its middle at the origin, its farthest corner at 1.

        Raises:
            ValueError: if it cannot be read, or has no size.
        """
        try:
            with ZipFile(self.library) as archive:
                folder = self.path.parent
                mesh = read_obj(
                    archive.read(str(self.path)), lambda name: archive.read(str(folder / name))
                )
        except (OSError, KeyError, BadZipFile, ZlibError, NotImplementedError) as error:
            raise ValueError(str(error)) from error
        corners = mesh.corners @ np.array(self.rotation, dtype=np.float32).reshape(3, 3).T
        corners = corners - (corners.min((0, 1)) + corners.max((0, 1))) / 2
        radius = np.linalg.norm(corners, axis=-1).max()
        if radius == 0:
            raise ValueError("the model has no size")
        return replace(mesh, corners=corners / radius)


def read_catalogues(folder: Path) -> list[Entry]:
    """All models of all libraries, in a fixed order.

    Raises:
        ValueError: if there is no library, or none can be read.
    """
    libraries = sorted(folder.glob("*.sh3f"))
    if not libraries:
        raise ValueError(f"{folder} holds no library: files that end in .sh3f are needed")
    found: list[Entry] = []
    skipped = Skipped()
    for library in libraries:
        try:
            found += _read_catalogue(library)
        except (OSError, KeyError, ValueError, BadZipFile, ZlibError) as error:
            skipped.add(library, error)
    skipped.check(len(libraries) - skipped.count, "furniture libraries")
    if len(found) < 3:
        raise ValueError(f"{folder} holds {len(found)} models; three sets need 3 or more")
    return found


def _read_catalogue(library: Path) -> list[Entry]:
    with ZipFile(library) as archive:
        text = archive.read(_CATALOGUE).decode("latin-1")
    models: dict[str, dict[str, str]] = defaultdict(dict)
    for key, number, value in _ENTRY.findall(text):
        models[number][key] = value
    return [
        Entry(
            library,
            PurePosixPath(model["model"].lstrip("/")),
            model["category"],
            tuple(float(x) for x in model.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()),
        )
        for model in models.values()
        if model.get("model", "").lower().endswith(".obj") and "category" in model
    ]


def _parted(entries: list[Entry]) -> list[list[Entry]]:
    """Models to test, to validate and to learn from."""
    counts = [max(1, round(share * len(entries))) for share in _SHARES]
    ends = [counts[0], sum(counts), len(entries)]
    return [entries[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def _render(
    entries: list[Entry],
    count: int,
    *,
    first: int,
    classes: tuple[str, ...],
    config: FurnitureConfig,
    device: torch.device,
) -> LabelledPictures:
    """Up to ``count`` pictures; models take turns, so that all are seen as often.

    What a view looks like follows from the seed, the model's number and the view's.
    """
    from rich.progress import track

    skipped = Skipped()
    views: list[tuple[int, View, int]] = []  # place in the set, the view, its class
    for number, entry in enumerate(track(entries[:count], description="furniture")):
        try:
            mesh = entry.load()
        except ValueError as error:
            skipped.add(entry.library / entry.path, error)
            continue
        label = classes.index(entry.category)
        corners, colours = (torch.from_numpy(x).to(device) for x in (mesh.corners, mesh.colours))
        for view, place in enumerate(range(number, count, len(entries))):
            rng = np.random.default_rng((config.seed, first + number, view))
            drawn = draw_view(corners, colours, rng, config.image_size)
            views.append((place, View(*(x.cpu() for x in drawn)), label))
    skipped.check(len(entries[:count]) - skipped.count, "furniture models")
    views.sort(key=lambda item: item[0])
    labels = torch.tensor([label for _, _, label in views])
    depth = torch.stack([view.depth for _, view, _ in views])
    is_model = torch.stack([view.is_model for _, view, _ in views])
    return LabelledPictures(
        pixels=torch.stack([view.pixels for _, view, _ in views]),
        labels=labels,
        depth=depth,
        has_depth=depth < _FAR,
        class_map=torch.where(is_model, 1 + labels[:, None, None], 0).short(),
    )


class View(NamedTuple):
    """One picture: ``(3, S, S)`` uint8; depth ``(S, S)``, at most ``_FAR``; where the model is."""

    pixels: Tensor
    depth: Tensor
    is_model: Tensor


def draw_view(corners: Tensor, colours: Tensor, rng: np.random.Generator, side: int) -> View:
    """Draw a model on a floor from somewhere.

    Args:
        corners: ``(T, 3, 3)`` of ``Entry.load``.
        colours: ``(T, 3)`` in [0, 1].
        rng: draws camera, light and the colours around.
        side: S.
    """
    device, fine = corners.device, _SAMPLES * side
    camera = Camera(
        azimuth=rng.uniform(0, 2 * math.pi),
        elevation=rng.uniform(*_ELEVATIONS),
        distance=rng.uniform(*_DISTANCES),
    )
    light = rng.normal(size=3) + np.array([0, 1.5, 0])  # rather from above
    floor, backdrop = torch.tensor(rng.uniform(0.35, 0.95, (2, 3)), dtype=torch.float32).to(device)
    found = rasterise(camera.project(corners, fine), fine)
    ground = camera.depth_of_plane(float(corners[..., 1].min()), fine, device)
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    direction = torch.tensor(light / np.linalg.norm(light), dtype=torch.float32).to(device)
    # Models do not agree on which side of a face is outside.
    lit = (functional.normalize(normals, dim=-1) @ direction).abs()
    shaded = colours * (_AMBIENT + (1 - _AMBIENT) * lit[:, None])  # (T, 3)
    is_model = found.depth < ground
    around = torch.where((ground < _FAR)[..., None], floor, backdrop)
    seen = torch.where(is_model[..., None], shaded[found.triangles.clamp(min=0)], around)
    pixels = functional.avg_pool2d(seen.permute(2, 0, 1), _SAMPLES)
    middle = slice(_SAMPLES // 2, None, _SAMPLES)
    depth = torch.minimum(found.depth, ground).clamp(max=_FAR)[middle, middle]
    return View(
        (255 * pixels).round().clamp(0, 255).to(torch.uint8), depth, is_model[middle, middle]
    )
