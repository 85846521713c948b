"""Corpora in every format, with each kind of corruption, for the tests of sources and mixtures.

A good document ``n`` says "page n" and shows pictures of one shade of grey. Each writer is told
which documents are broken how, writes the files, and returns the format that reads them.
"""

import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unimm.data.files import PictureRule
from unimm.data.formats import FORMATS, FormatConfig

SIZE = 16
RULE = PictureRule(image_size=SIZE, max_pixels=40 * 40, max_pictures=4, max_characters=200)
URL = "https://example.org/picture.png"

Broken = Mapping[int, str]
"""Number of a document -> the cause for which it must be skipped."""


def grey(number: int) -> int:
    """Shade of document ``number``'s pictures."""
    return 10 + number * 7 % 240


def picture(number: int, cause: str = "") -> bytes:
    """A PNG, broken by ``corrupt image`` or ``huge image``."""
    side = 50 if cause == "huge image" else SIZE
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (grey(number),) * 3).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[: len(data) // 2] if cause == "corrupt image" else data


def text(number: int, cause: str = "") -> str:
    return {"document too long": "x" * 201, "empty document": " "}.get(cause, f"page {number}")


def put(folder: Path, number: int, cause: str) -> str:
    """Write a picture beside the records, unless it must be missing."""
    name = f"{number}.png"
    if cause == "URL only":
        return URL
    if cause != "missing image":
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number, cause))
    return name


def write_lines(path: Path, num: int, broken: Broken, record: Callable[[int, str], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for n in range(num):
        cause = broken.get(n, "")
        lines.append('{"half a' if cause == "wrong JSON" else json.dumps(record(n, cause)))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_jsonl(folder: Path, num: int, broken: Broken) -> FormatConfig:
    def record(n: int, cause: str) -> Any:
        if cause == "wrong fields":
            return {"parts": [{"text": 5}]}
        if cause == "empty document":
            return {"parts": [{"text": " "}]}
        image = {"image": put(folder / "pictures", n, cause), "is_drawn": n % 2 == 0}
        return {"parts": [{"text": text(n, cause)}, image], "kind": "story"}

    write_lines(folder / "documents.jsonl", num, broken, record)
    return FORMATS["jsonl"](files=f"{folder}/*.jsonl", images=f"{folder}/pictures")


def write_captions(folder: Path, num: int, broken: Broken) -> FormatConfig:
    """Half of them pairs of files, half of them in a list."""
    pairs, listed = folder / "a_pairs", folder / "b_listed"
    num_pairs = num // 2
    pairs.mkdir(parents=True)
    for n in range(num_pairs):
        cause = broken.get(n, "")
        (pairs / f"{n:05d}.png").write_bytes(picture(n, cause))
        if cause == "wrong fields":
            (pairs / f"{n:05d}.txt").write_bytes(b"\xff\xfe\xff")
        elif cause != "missing member":
            (pairs / f"{n:05d}.txt").write_text(text(n, cause))

    def record(n: int, cause: str) -> Any:
        name = put(listed, n + num_pairs, cause)
        return {"file_name": name, "text": text(n + num_pairs, cause)}

    rest = {n - num_pairs: cause for n, cause in broken.items() if n >= num_pairs}
    write_lines(listed / "metadata.jsonl", num - num_pairs, rest, record)
    return FORMATS["captions"](files=f"{folder}/*")


def write_webdataset(folder: Path, num: int, broken: Broken) -> FormatConfig:
    """Caption pairs and interleaved documents in turn, in tars of 100; the last one is cut off."""
    folder.mkdir(parents=True, exist_ok=True)
    last_start = (num - 1) // 100 * 100
    for start in range(0, num, 100):
        path = folder / f"{start:06d}.tar"
        with tarfile.open(path, "w") as archive:

            def add(name: str, data: bytes, archive: tarfile.TarFile = archive) -> None:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))

            for n in range(start, min(start + 100, num)):
                cause, key = broken.get(n, ""), f"set.v1/{n:06d}"
                if n % 2 == 0:
                    add(f"{key}.png", picture(n, cause))
                    if cause == "wrong JSON":
                        add(f"{key}.json", b"{")
                    elif cause == "wrong fields":
                        add(f"{key}.txt", b"\xff\xfe\xff")
                    elif cause != "missing member":
                        add(f"{key}.txt", text(n, cause).encode())
                    continue
                parts = [{"text": text(n, cause)}, {"image": "0.png"}]
                known = {"wrong JSON": b"[1", "wrong fields": b'{"parts": 5}'}
                add(f"{key}.json", known.get(cause, json.dumps({"parts": parts}).encode()))
                if cause != "missing member":
                    add(f"{key}.0.png", picture(n, cause))
        if start == last_start and broken.get(num - 1) == "truncated tar":
            with tarfile.open(path) as archive:
                end = archive.getmembers()[-1].offset_data
            path.write_bytes(path.read_bytes()[: end + 10])
    return FORMATS["webdataset"](files=f"{folder}/*.tar")


def write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=16)


def write_parquet(folder: Path, num: int, broken: Broken) -> FormatConfig:
    images: list[Any] = []
    texts: list[str | None] = []
    for n in range(num):
        cause = broken.get(n, "")
        path = {"missing image": "gone.png", "URL only": URL}.get(cause)
        images.append({"bytes": None if path else picture(n, cause), "path": path})
        texts.append(None if cause == "wrong fields" else text(n, cause))
    write_table(folder / "train-00000.parquet", {"image": images, "text": texts})
    return FORMATS["parquet"](files=f"{folder}/*.parquet")


def write_obelics(folder: Path, num: int, broken: Broken) -> FormatConfig:
    """URLs that img2dataset downloaded, all but some."""
    downloads = folder / "downloads"
    rows: list[tuple[list[str | None], list[str | None]]] = []
    known: list[dict[str, str]] = []
    for n in range(num):
        cause, key, url = broken.get(n, ""), f"00000{n:04d}", f"{URL}?{n}"
        if cause == "empty document":
            rows.append(([], []))
            continue
        images, texts = [None, url], [text(n, cause), None]
        rows.append((images, [texts[0], "too"]) if cause == "wrong fields" else (images, texts))
        status = "failed_to_download" if cause == "URL only" else "success"
        known.append({"url": url, "key": key, "status": status})
        if cause not in ("URL only", "missing image"):
            (downloads / "00000").mkdir(parents=True, exist_ok=True)
            (downloads / f"00000/{key}.jpg").write_bytes(picture(n, cause))
    columns = {"images": [row[0] for row in rows], "texts": [row[1] for row in rows]}
    columns["metadata"] = columns["general_metadata"] = [["{}"]] * num
    write_table(folder / "rows/train-00000-of-00001.parquet", columns)
    names = ("url", "key", "status")
    write_table(downloads / "00000.parquet", {name: [x[name] for x in known] for name in names})
    return FORMATS["obelics"](files=f"{folder}/rows/*.parquet", images=str(downloads))


def write_mmc4(folder: Path, num: int, broken: Broken) -> FormatConfig:
    images = folder / "docs_no_face_shard_0_v2_images"

    def record(n: int, cause: str) -> Any:
        info = {
            "image_name": f"{n}.png" if put(images, n, cause) == URL else put(images, n, cause),
            "raw_url": URL,
            "matched_text_index": 7 if cause == "wrong fields" else 0,
            "matched_sim": 0.3,
            "face_detections": None,
        }
        words = [] if cause == "empty document" else [text(n, cause), "And more."]
        return {
            "text_list": words,
            "image_info": [info] if words else [],
            "similarity_matrix": [[0.3, 0.1]],
            "url": URL,
            "could_have_url_duplicate": 0,
        }

    write_lines(folder / "docs_no_face_shard_0_v2.jsonl", num, broken, record)
    return FORMATS["mmc4"](files=f"{folder}/*.jsonl")


def write_comm(folder: Path, num: int, broken: Broken) -> FormatConfig:
    images = folder / "images"
    records: list[dict[str, Any]] = []
    for n in range(num):
        cause = broken.get(n, "")
        name = put(images, n, cause)
        is_url = name == URL
        shown = {"type": "image", "image_path": f"{n}.png", "url": URL if is_url else None}
        said = {"type": "text", "content": text(n, cause)}
        if cause == "wrong fields":
            said = {"type": "sound", "content": ""}
        steps = [] if cause == "empty document" else [[said, shown]]
        records.append(
            {
                "data_id": n,
                "dataset_type": "wikihow",
                "title": None if n % 2 or cause == "empty document" else "How to",
                "summary_info": [],
                "step_info": steps,
            }
        )
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(records, folder / "train.pth")
    return FORMATS["comm"](files=f"{folder}/*.pth", images=str(images))


def write_storystream(folder: Path, num: int, broken: Broken) -> FormatConfig:
    images = folder / "images"

    def record(n: int, cause: str) -> Any:
        name = put(images, n, cause)
        captions = [text(n, cause), "The end."]
        if cause == "wrong fields":
            captions.append("one too many")
        return {"id": n, "images": [name, name], "captions": captions, "orders": [0, 1]}

    write_lines(folder / "story.jsonl", num, broken, record)
    return FORMATS["storystream"](files=f"{folder}/*.jsonl", images=str(images))


_PICTURE = ("corrupt image", "huge image")
_LENGTH = ("document too long",)
CORRUPTIONS: dict[str, tuple[Callable[[Path, int, Broken], FormatConfig], tuple[str, ...]]] = {
    "jsonl": (
        write_jsonl,
        (
            *_PICTURE,
            *_LENGTH,
            "wrong JSON",
            "wrong fields",
            "missing image",
            "URL only",
            "empty document",
        ),
    ),
    "captions": (write_captions, (*_PICTURE, "missing member", *_LENGTH)),
    "webdataset": (
        write_webdataset,
        (*_PICTURE, *_LENGTH, "wrong JSON", "wrong fields", "missing member"),
    ),
    "parquet": (
        write_parquet,
        (*_PICTURE, *_LENGTH, "wrong fields", "missing image", "URL only"),
    ),
    "obelics": (
        write_obelics,
        (*_PICTURE, *_LENGTH, "wrong fields", "missing image", "URL only", "empty document"),
    ),
    "mmc4": (
        write_mmc4,
        (*_PICTURE, *_LENGTH, "wrong JSON", "wrong fields", "URL only", "empty document"),
    ),
    "comm": (
        write_comm,
        (*_PICTURE, *_LENGTH, "wrong fields", "missing image", "URL only", "empty document"),
    ),
    "storystream": (
        write_storystream,
        (*_PICTURE, *_LENGTH, "wrong JSON", "wrong fields", "missing image"),
    ),
}
"""Format -> its writer and the causes that it can be told to provoke."""


def broken_at(name: str, num: int, num_broken: int) -> dict[int, str]:
    """Spread a format's causes evenly over ``num`` documents; a tar ends in a cut."""
    causes = CORRUPTIONS[name][1]
    is_tar = name == "webdataset"
    spread = num_broken - is_tar
    found = {(2 * k + 1) * num // (2 * spread): causes[k % len(causes)] for k in range(spread)}
    if name == "captions":  # each half knows causes of its own
        half = num // 2
        found = {
            n: "missing image" if n >= half and cause == "missing member" else cause
            for n, cause in found.items()
        }
    return found | ({num - 1: "truncated tar"} if is_tar else {})
