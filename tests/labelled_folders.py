"""Tiny labelled sets in the layouts that the real ones come in."""

import gzip
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def write_idx(path: Path, values: np.ndarray) -> None:
    """An array of bytes as MNIST's files hold it."""
    head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes()))


def write_fashion_mnist(folder: Path, *, num_train: int = 60, num_test: int = 20) -> Path:
    """Classes that a bright row tells apart."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", num_train), ("t10k", num_test)):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 60, (count, 28, 28))
        pixels[np.arange(count), 2 * labels + 4] = 255
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels)
    return folder


def write_picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> None:
    """A plain JPEG or PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def write_imagenet(folder: Path) -> Path:
    """Two synsets, red and blue, with one file that is no picture."""
    for label, (synset, colour) in enumerate({"n01": (250, 0, 0), "n02": (0, 0, 250)}.items()):
        for i in range(4):
            write_picture(folder / "train" / synset / f"{synset}_{i}.JPEG", colour, (40, 30))
        write_picture(folder / "val" / synset / f"v_{label}.JPEG", colour, (30, 50))
    (folder / "train" / "n01" / "broken.JPEG").write_bytes(b"no picture")
    (folder / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\n")
    return folder


def write_depth(path: Path, values: np.ndarray) -> None:
    """A 16-bit PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


def write_nyu(folder: Path) -> Path:
    """Rooms of 64x48 whose depth is a ramp of 1 to 4 metres; one lacks its depth map."""
    ramp = np.tile(np.linspace(1000, 4000, 64), (48, 1))
    for part, count in (("train", 4), ("test", 2)):
        lines = []
        for i in range(count):
            scene = f"{part}_room_000{i}"
            write_picture(folder / scene / "rgb_00000.jpg", (40 * i, 90, 90), (64, 48))
            write_depth(folder / scene / "sync_depth_00000.png", ramp)
            lines.append(f"/{scene}/rgb_00000.jpg /{scene}/sync_depth_00000.png 518.8579")
        (folder / f"nyu_{part}.txt").write_text("\n".join(lines) + "\n")
    (folder / "train_room_0003" / "sync_depth_00000.png").unlink()
    return folder


def write_kitti(folder: Path) -> Path:
    """Roads of 96x32, sparse depth of 20 metres; one line has no depth."""
    sparse = np.zeros((32, 96))
    sparse[::2, ::2] = 20 * 256
    for part, count in (("train", 3), ("test", 2)):
        lines = []
        for i in range(count):
            drive, number = f"2011_09_26_drive_000{i}_sync", f"000000006{i}"
            image = f"2011_09_26/{drive}/image_02/data/{number}.png"
            depth = f"{drive}/proj_depth/groundtruth/image_02/{number}.png"
            write_picture(folder / "input" / image, (80, 80, 80), (96, 32))
            write_depth(folder / "gt_depth" / depth, sparse)
            lines.append(f"{image} {depth} 721.5377")
        lines.append(f"{image} None 721.5377")
        (folder / f"kitti_eigen_{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_spair(folder: Path) -> Path:
    """Cats of 80x40 and 40x80 with two matching points."""
    write_picture(folder / "JPEGImages" / "cat" / "a.jpg", (200, 10, 10), (80, 40))
    write_picture(folder / "JPEGImages" / "cat" / "b.jpg", (10, 200, 10), (40, 80))
    pair = {
        "category": "cat",
        "src_imname": "a.jpg",
        "trg_imname": "b.jpg",
        "src_kps": [[0, 0], [79, 39]],
        "trg_kps": [[10, 20], [30, 60]],
        "src_bndbox": [0, 0, 80, 40],
        "trg_bndbox": [10, 20, 30, 60],
    }
    for part in ("trn", "val", "test"):
        path = folder / "PairAnnotation" / part
        path.mkdir(parents=True)
        (path / "000001-a-b:cat.json").write_text(json.dumps(pair))
    (path / "000002-a-b:cat.json").write_text("{")
    return folder


def write_stereo_photo(folder: Path) -> Path:
    """A photo of 60x40, redder to the right, whose disparity falls by one a column.

    The last column has none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[..., 0] = 4 * np.arange(60)
    Image.fromarray(pixels).save(folder / "motorcycle_left.png")
    disparity = np.tile(60 - np.arange(60, dtype=np.float32), (40, 1))
    disparity[:, -1] = np.inf
    np.savez(folder / "motorcycle_disp.npz", disparity)
    return folder


def write_furniture(folder: Path) -> Path:
    """A library of six boxes of different blue, a lying pillar, and a model that is broken."""
    cube = [f"v {x} {y} {z}" for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    sides = ["1 2 4 3", "5 6 8 7", "1 2 6 5", "3 4 8 7", "1 3 7 5", "2 4 8 6"]
    boxes = {f"box{i}": (cube, 0.1 * i) for i in range(6)}
    lying = [line.replace("v 1", "v 9") for line in cube]
    models = boxes | {"pillar": (lying, 0.6)}
    catalogue = ["id=Test", "# a comment"]
    with zipfile.ZipFile(folder / "Test.sh3f", "w") as archive:
        for number, (name, (vertices, blue)) in enumerate(models.items(), 1):
            root = f"test/{name}/{name}"
            faces = [f"f {side}" for side in sides]
            lines = [f"mtllib {name}.mtl", *vertices, "usemtl paint", *faces]
            archive.writestr(f"{root}.obj", "\n".join(lines))
            archive.writestr(f"{root}.mtl", f"newmtl paint\nKd 0.5 0.1 {blue}\n")
            catalogue += [f"category#{number}={('Bedroom', 'Kitchen')[number % 2]}"]
            catalogue += [f"model#{number}=/{root}.obj"]
        archive.writestr("test/broken.obj", "v 0 0")
        catalogue += ["modelRotation#7=0 0 1 -1 0 0 0 -1 0", "category#8=Bedroom"]
        catalogue += ["model#8=/test/broken.obj"]
        text = "\n".join(catalogue)
        archive.writestr("PluginFurnitureCatalog.properties", text)
    return folder
