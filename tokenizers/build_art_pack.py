"""Build Storyworld's art pack: 128 px sprites in three styles, one atlas a style.

    python tokenizers/build_art_pack.py --sheet /tmp/sheets

Fetches three npm packages (about 20 MB), so it needs npm and a network; the pack it writes is
part of the package, so nobody else does. SVG is drawn by ``resvg-py``, needed here only.
"""

import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from unimm.data.world.scene import HEADWEAR, OBJECTS, SPECIES

PACKAGES = {
    "3d": "@lobehub/fluent-emoji-3d@1.1.0",
    "flat": "@iconify-json/fluent-emoji-flat@1.2.6",
    "noto": "@iconify-json/noto@1.2.9",
}
SPRITES = SPECIES | HEADWEAR | OBJECTS


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to write, and where."""

    out: Path = Path(__file__).parents[1] / "unimm/assets/art"
    """Folder of the pack."""
    size: int = 128
    """Side of a sprite in pixels."""
    columns: int = 10
    """Sprites in a row of an atlas."""
    sheet: Path | None = None
    """Also write the atlases as PNG on grey here, to look at."""


def fetch(package: str, folder: Path) -> Path:
    """Download and unpack one npm package; returns the folder of its files."""
    folder.mkdir()
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def webp_reader(package: Path) -> Callable[[str, int], Image.Image]:
    """Read one sprite of a package that holds one WebP for each hex code."""
    paths = {path.stem.lower().replace("-fe0f", ""): path for path in package.glob("assets/*.webp")}
    return lambda code, size: Image.open(paths[code])


def svg_reader(package: Path) -> Callable[[str, int], Image.Image]:
    """Draw one sprite of an Iconify package (SVG bodies in one JSON) at four times its size."""
    import resvg_py  # pyright: ignore[reportMissingImports]

    chars = json.loads((package / "chars.json").read_text())
    names = {code.replace("-fe0f", ""): name for code, name in chars.items()}
    icons = json.loads((package / "icons.json").read_text())

    def read(code: str, size: int) -> Image.Image:
        icon = icons["icons"][names[code]]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        view = f'viewBox="{left} {top} {width} {height}"'
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" {view}>{icon["body"]}</svg>'
        drawn = resvg_py.svg_to_bytes(svg_string=svg, width=4 * size, height=4 * size)
        return Image.open(io.BytesIO(bytes(drawn)))

    return read


def resized(image: Image.Image, size: int) -> Image.Image:
    """Shrink with premultiplied alpha, so that no dark fringe appears at the edges."""
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    planes = [
        np.asarray(Image.fromarray(rgba[..., c]).resize((size, size), Image.Resampling.BOX))
        for c in range(4)
    ]
    small = np.stack(planes, axis=-1)
    small[..., :3] /= np.maximum(small[..., 3:], 1e-4)
    return Image.fromarray((small.clip(0, 1) * 255).round().astype(np.uint8))


def main(arguments: Arguments) -> None:
    """Write one atlas a style and the manifest."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    size, columns = arguments.size, arguments.columns
    rows = -(-len(SPRITES) // columns)
    with tempfile.TemporaryDirectory() as temporary:
        for style, package in PACKAGES.items():
            files = fetch(package, Path(temporary) / style)
            read = (webp_reader if style == "3d" else svg_reader)(files)
            atlas = Image.new("RGBA", (columns * size, rows * size))
            for index, code in enumerate(SPRITES.values()):
                place = (index % columns * size, index // columns * size)
                atlas.paste(resized(read(code, size), size), place)
            path = arguments.out / f"{style}.webp"
            atlas.save(path, quality=95, alpha_quality=100, method=6)
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, {len(SPRITES)} sprites")
            if arguments.sheet is not None:
                arguments.sheet.mkdir(parents=True, exist_ok=True)
                ground = Image.new("RGBA", atlas.size, (150, 160, 150, 255))
                Image.alpha_composite(ground, atlas).save(arguments.sheet / f"{style}.png")
    manifest = {"size": size, "columns": columns, "names": list(SPRITES), "packages": PACKAGES}
    (arguments.out / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
