"""The contract on disk of scoring pictures: requests, samples, results, summary, report.

``requests.jsonl -> samples/ -> results.jsonl -> summary.json + report.html``. ``samples/`` has
GenEval's layout, ``00007/metadata.jsonl`` and ``00007/samples/00000.png`` for the first picture of
the eighth request, so any generator can fill it, and GenEval's own scripts can read and write it.
``run.json`` remembers what the folder belongs to: its generator and its judge.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from unimm.evaluation.picture_requests import (
    PictureRequest,
    dump_requests,
    hash_text,
    read_requests,
)

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")  # 8 bits a channel or less


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One picture, or why there is none.

    Attributes:
        picture: RGB.
        problem: what is wrong with it; empty if nothing is.
        digest: of its pixels.
    """

    picture: Image.Image | None = None
    problem: str = ""
    digest: str = ""

    @staticmethod
    def of(picture: Image.Image | None, *, problem: str = "missing") -> "Sample":
        """A picture in memory, transparency as white; None is missing."""
        if picture is None:
            return Sample(problem=problem)
        if "A" in picture.getbands() or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("RGB")
        digest = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
        return Sample(picture=picture, digest=digest[:16])


class PictureFolder:
    """A run on disk.

    Args:
        root: the folder; made when it is missing.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.requests_path = self.root / "requests.jsonl"
        self.samples = self.root / "samples"

    def keep_requests(self, requests: Sequence[PictureRequest]) -> str:
        """Write the requests, or hold them against those that lie here; gives their hash.

        Raises:
            ValueError: other requests lie here.
        """
        text = dump_requests(requests)
        if self.requests_path.is_file():
            there = hash_text(dump_requests(read_requests(self.requests_path)))
            if there != hash_text(text):
                raise ValueError(
                    f"{self.requests_path} holds requests {there}, but this run asks "
                    f"{hash_text(text)}; give another output folder or the old settings"
                )
        else:
            write_text(self.requests_path, text)
        return hash_text(text)

    def claim(self, role: str, facts: Mapping[str, Any]) -> None:
        """Remember who draws or judges here.

        Args:
            role: ``generator`` or ``judge``.
            facts: all that makes its pictures or verdicts; plain data.

        Raises:
            ValueError: another one has drawn or judged here.
        """
        path = self.root / "run.json"
        owners = json.loads(path.read_text()) if path.is_file() else {}
        mine = json.loads(json.dumps(facts))
        there = owners.get(role)
        if there is not None and there != mine:
            raise ValueError(
                f"{self.root} belongs to {role} {_hash(there)} ({_brief(there)}), not to "
                f"{_hash(mine)} ({_brief(mine)}); give another output folder"
            )
        if there is None:
            write_text(path, json.dumps(owners | {role: mine}, indent=1) + "\n")

    def path_of(self, request: int, sample: int) -> Path:
        """Where a picture lies."""
        return self.samples / f"{request:05}" / "samples" / f"{sample:05}.png"

    def find(self, request: int, sample: int) -> Path:
        """Where a picture lies, also if its number has fewer or more digits than ours."""
        path = self.path_of(request, sample)
        if path.exists() or not path.parent.is_dir():
            return path
        named = [x for x in path.parent.glob("*.png") if x.stem.isdigit()]
        return next((x for x in named if int(x.stem) == sample), path)

    def num_beyond(self, num_requests: int, num_samples: int) -> int:
        """Pictures that lie here and are not asked for: of other numbers, or not named by one."""
        asked = {self.find(i, j) for i in range(num_requests) for j in range(num_samples)}
        return sum(path not in asked for path in self.samples.glob("*/samples/*.png"))

    def write_metadata(self, requests: Sequence[PictureRequest]) -> None:
        """Make GenEval's folders, each with its ``metadata.jsonl``; those that are there stay."""
        for number, request in enumerate(requests):
            folder = self.samples / f"{number:05}"
            (folder / "samples").mkdir(parents=True, exist_ok=True)
            path = folder / "metadata.jsonl"
            if not path.is_file():
                write_text(path, json.dumps(request.metadata.to_json()))

    def write_sample(self, request: int, sample: int, picture: Image.Image) -> None:
        """Save a picture; it is whole or not there."""
        path = self.path_of(request, sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        picture.save(partial, "PNG", compress_level=1)  # a third of the time, a fifth larger
        os.replace(partial, path)

    def missing(self, num_requests: int, num_samples: int) -> list[tuple[int, int]]:
        """Which pictures (request, sample) are not there yet."""
        places = [(i, j) for i in range(num_requests) for j in range(num_samples)]
        return [place for place in places if not self.find(*place).exists()]

    def read_samples(
        self, requests: Sequence[PictureRequest], num_samples: int
    ) -> list[list[Sample]]:
        """Read all pictures; one that cannot be judged becomes a problem, never an exception.

        The size that most pictures have is the right one.

        Args:
            requests: what was asked for.
            num_samples: pictures of each request.

        Raises:
            ValueError: a folder holds pictures of another prompt.
        """
        self._check_prompts(requests)
        rows = [
            [read_sample(self.find(number, j)) for j in range(num_samples)]
            for number in range(len(requests))
        ]
        sizes = Counter(x.picture.size for row in rows for x in row if x.picture is not None)
        if not sizes:
            return rows
        right = sizes.most_common(1)[0][0]
        return [[_check_size(x, right) for x in row] for row in rows]

    def _check_prompts(self, requests: Sequence[PictureRequest]) -> None:
        for number, request in enumerate(requests):
            path = self.samples / f"{number:05}" / "metadata.jsonl"
            if not path.is_file():
                continue
            prompt = json.loads(path.read_text(encoding="utf-8")).get("prompt")
            if prompt != request.prompt:
                raise ValueError(
                    f"{path.parent} holds pictures of {prompt!r}, but request {request.id} is "
                    f"{request.prompt!r}; these samples were drawn for other requests"
                )


def read_sample(path: Path) -> Sample:
    """Read one picture file."""
    if not path.is_file():
        return Sample(problem="missing")
    try:
        with Image.open(path) as opened:
            opened.load()
            if opened.mode not in _MODES:
                return Sample(problem=f"mode {opened.mode}: give 8-bit RGB")
            return Sample.of(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        return Sample(problem="not a picture")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Sample(problem=f"damaged: {error}")


def read_geneval_folder(folder: str | Path) -> list[PictureRequest]:
    """The requests of a folder that was filled by GenEval's scripts.

    Raises:
        ValueError: it holds no prompts, numbers are left out, or a ``metadata.jsonl`` is missing or
            damaged.
    """
    folder = Path(folder)
    found = sorted(x.name for x in folder.glob("*") if x.is_dir() and x.name.isdigit())
    expected = [f"{number:05}" for number in range(len(found))]
    if not found or found != expected:
        gap = next((a for a, b in zip(expected, found, strict=True) if a != b), "00000")
        raise ValueError(f"{folder} should hold folders 00000, 00001, ...; {gap} is not there")
    requests: list[PictureRequest] = []
    for number, name in enumerate(found):
        path = folder / name / "metadata.jsonl"
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            requests.append(PictureRequest.from_json(entry, number=number))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    return requests


def write_text(path: Path, text: str) -> None:
    """Write a file that is whole or not there."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _check_size(sample: Sample, right: tuple[int, int]) -> Sample:
    if sample.picture is None:
        return sample
    width, height = sample.picture.size
    if width != height:
        return replace(sample, picture=None, problem=f"{width} x {height} pixels: not square")
    if (width, height) != right:
        problem = f"{width} x {height} pixels, most have {right[0]} x {right[1]}"
        return replace(sample, picture=None, problem=problem)
    return sample


def _hash(facts: Any) -> str:
    return hash_text(json.dumps(facts, sort_keys=True))


def _brief(facts: Any) -> str:
    return json.dumps(facts)[:160]
