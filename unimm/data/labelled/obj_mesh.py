"""Wavefront OBJ models as coloured triangles.

What is read: vertices, texture coordinates, faces of any number of corners, and of the material
files the diffuse colour and its texture, sampled once in the middle of each face. Glass is opaque.
Legend: ``T`` triangles.
"""

import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.float32]
ReadFile = Callable[[str], bytes]
"""The content of a file whose path is relative to the model's folder; KeyError if it is missing."""

_GREY = (0.7, 0.7, 0.7)  # of faces without a material


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A model.

    Attributes:
        corners: ``(T, 3, 3)`` float32, the corners of each triangle.
        colours: ``(T, 3)`` float32 in [0, 1].
    """

    corners: Floats
    colours: Floats


@dataclass
class _Material:
    colour: tuple[float, ...] = _GREY
    texture: Floats | None = None  # (h, w, 3)

    def at(self, uv: tuple[float, float] | None) -> tuple[float, ...]:
        """Colour where the texture coordinates are; textures repeat, and begin at the bottom."""
        if self.texture is None or uv is None:
            return self.colour
        height, width = self.texture.shape[:2]
        row, column = int((1 - uv[1]) % 1 * height), int(uv[0] % 1 * width)
        return tuple(self.texture[min(row, height - 1), min(column, width - 1)])


@dataclass
class _Builder:
    """What has been read of a model so far."""

    read_file: ReadFile
    vertices: list[tuple[float, ...]] = field(default_factory=list)
    uvs: list[tuple[float, ...]] = field(default_factory=list)
    materials: dict[str, _Material] = field(default_factory=dict)
    material: _Material = field(default_factory=_Material)
    triangles: list[tuple[int, int, int]] = field(default_factory=list)
    colours: list[tuple[float, ...]] = field(default_factory=list)

    def add(self, kind: str, rest: str) -> None:
        if kind == "v":
            self.vertices.append(_numbers(rest, 3))
        elif kind == "vt":
            self.uvs.append(_numbers(rest, 2))
        elif kind == "f":
            self._add_face(rest.split())
        elif kind == "usemtl":
            self.material = self.materials.get(rest, _Material())
        elif kind == "mtllib":
            self.materials |= _read_materials(rest, self.read_file)

    def _add_face(self, words: list[str]) -> None:
        """A fan of triangles; numbers begin at 1, negative ones count from the last."""
        places = [word.split("/") for word in words]
        corners = [_index(place[0], len(self.vertices)) for place in places]
        uv = None
        if all(len(place) > 1 and place[1] for place in places):
            seen = [self.uvs[_index(place[1], len(self.uvs))] for place in places]
            uv = (sum(x[0] for x in seen) / len(seen), sum(x[1] for x in seen) / len(seen))
        colour = self.material.at(uv)
        for second, third in itertools.pairwise(corners[1:]):
            self.triangles.append((corners[0], second, third))
            self.colours.append(colour)


def read_obj(content: bytes, read_file: ReadFile) -> Mesh:
    """Read a model.

    Args:
        content: of the OBJ file.
        read_file: gives material files and textures; those that are missing leave faces grey.

    Raises:
        ValueError: if it has no face, or a line is malformed.
    """
    builder = _Builder(read_file)
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        kind, _, rest = line.strip().partition(" ")
        try:
            builder.add(kind, rest.strip())
        except (ValueError, IndexError) as error:
            raise ValueError(f"line {number}, {line[:60]!r}: {error}") from error
    if not builder.triangles:
        raise ValueError("the model has no face")
    vertices = np.array(builder.vertices, dtype=np.float32)
    return Mesh(
        corners=vertices[np.array(builder.triangles)],
        colours=np.array(builder.colours, dtype=np.float32),
    )


def _read_materials(name: str, read_file: ReadFile) -> dict[str, _Material]:
    try:
        text = read_file(name).decode("utf-8", "replace")
    except KeyError:
        return {}
    found: dict[str, _Material] = {}
    material = _Material()
    for line in text.splitlines():
        kind, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if kind == "newmtl":
            material = found[rest] = _Material()
        elif kind == "Kd":
            material.colour = _numbers(rest, 3)
        elif kind == "map_Kd":
            material.texture = _read_texture(rest, read_file)
    return found


def _read_texture(rest: str, read_file: ReadFile) -> Floats | None:
    name = rest.split()[-1] if rest.startswith("-") else rest  # options stand before the name
    try:
        with Image.open(io.BytesIO(read_file(str(PurePosixPath(name))))) as opened:
            return np.asarray(opened.convert("RGB"), dtype=np.float32) / np.float32(255)
    except (KeyError, OSError, SyntaxError, ValueError):
        return None


def _numbers(text: str, count: int) -> tuple[float, ...]:
    found = tuple(float(word) for word in text.split()[:count])
    if len(found) < count or not np.isfinite(found).all():
        raise ValueError(f"{count} numbers are needed")
    return found


def _index(word: str, count: int) -> int:
    number = int(word)
    index = number - 1 if number > 0 else count + number
    if not 0 <= index < count:
        raise ValueError(f"{number} is out of range: there are {count}")
    return index
