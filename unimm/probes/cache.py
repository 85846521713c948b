"""Features of whole sets: on disk, resumable and named by what they are made from, or in memory.

Legend: ``N`` pictures of a set, ``D h w`` features.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unimm.probes.features import feature_maps
from unimm.probes.spec import FeatureModel, FeatureSpec, resolve_layers

# Half precision ends at 65,504: a wild activation is cut off, not made infinite.
_LARGEST = 60_000


class FeaturesInMemory:
    """Extracts features of whole sets anew each time, onto the model's device.

    A small network on a GPU gives them faster than any disk does; they must fit there.

    Args:
        batch_size: pictures at once.
        show_progress: draw a progress bar.
    """

    def __init__(self, *, batch_size: int = 256, show_progress: bool = True) -> None:
        self.batch_size = batch_size
        self.show_progress = show_progress

    def maps(
        self, model: FeatureModel, pixels: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> list[Tensor]:
        """As ``FeatureCache.maps``: ``(N, D, h, w)`` float16 a layer."""
        from rich.progress import track

        chunks: list[tuple[Tensor, ...]] = []
        label = f"{spec.source}, t {spec.timestep:g}"
        parts = pixels.split(self.batch_size)
        for part in track(parts, description=label, disable=not self.show_progress):
            maps = feature_maps(model, part.to(model.device).float() / 127.5 - 1, spec, layers)
            chunks.append(tuple(x.clamp(-_LARGEST, _LARGEST).half() for x in maps))
        return [torch.cat(layer) for layer in zip(*chunks, strict=True)]


class FeatureCache:
    """Extracts features of whole sets once, into memory maps.

    A name is a hash of the network's weights, of what is asked for and of the pixels, so a changed
    model or set can never read old features. A run that was killed goes on where it stopped.

    Args:
        folder: where files lie.
        batch_size: pictures at once.
        show_progress: draw a progress bar.
    """

    def __init__(
        self, folder: str | Path, *, batch_size: int = 256, show_progress: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.batch_size = batch_size
        self.show_progress = show_progress
        self.num_extracted = 0  # pictures that a network has looked at since this was made
        self._fingerprints: dict[int, tuple[nn.Module, str]] = {}

    def maps(
        self, model: FeatureModel, pixels: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> list[NDArray[np.float16]]:
        """Features of a set, one memory map ``(N, D, h, w)`` float16 a layer.

        Args:
            model: to look with.
            pixels: ``(N, 3, H, W)`` uint8 on the CPU.
            spec: which features; ``spec.layer`` is not read.
            layers: which layers.
        """
        numbers = resolve_layers(model.source(spec.source), layers)
        root = self.folder / self._key(model, pixels, spec)
        root.mkdir(parents=True, exist_ok=True)
        missing = sorted({i for i in numbers if _num_done(root, i) < len(pixels)})
        if missing:
            self._extract(model, pixels, spec, missing, root)
        return [np.load(_path(root, i), mmap_mode="c") for i in numbers]

    def _extract(
        self,
        model: FeatureModel,
        pixels: Tensor,
        spec: FeatureSpec,
        layers: list[int],
        root: Path,
    ) -> None:
        from rich.progress import track

        first = min(_num_done(root, i) for i in layers)
        starts = range(first, len(pixels), self.batch_size)
        label = f"{spec.source}, t {spec.timestep:g}"
        for start in track(starts, description=label, disable=not self.show_progress):
            chunk = pixels[start : start + self.batch_size].to(model.device)
            maps = feature_maps(model, chunk.float() / 127.5 - 1, spec, layers)
            self.num_extracted += len(chunk)
            for layer, found in zip(layers, maps, strict=True):
                _write(root, layer, found, start, len(pixels))

    def _key(self, model: FeatureModel, pixels: Tensor, spec: FeatureSpec) -> str:
        """Hash of all that the features follow from."""
        assert pixels.dtype == torch.uint8, pixels.dtype
        asked = {k: v for k, v in asdict(spec).items() if k != "layer"}
        asked |= {"size": model.image_size, "shape": list(pixels.shape)}
        digest = hashlib.blake2b(json.dumps(asked, sort_keys=True).encode(), digest_size=16)
        digest.update(self._fingerprint(model, spec.source).encode())
        digest.update(pixels.contiguous().numpy().data)
        return digest.hexdigest()

    def _fingerprint(self, model: FeatureModel, source: str) -> str:
        modules = model.weights(source)
        key = id(modules[0])
        if key not in self._fingerprints:
            digest = hashlib.blake2b(digest_size=16)
            for module in modules:
                for name, tensor in module.state_dict().items():
                    digest.update(name.encode())
                    digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
            # The module is kept, so that no other one can get its id.
            self._fingerprints[key] = (modules[0], digest.hexdigest())
        return self._fingerprints[key][1]


def _path(root: Path, layer: int) -> Path:
    return root / f"layer_{layer}.npy"


def _num_done(root: Path, layer: int) -> int:
    """Pictures of a layer that are surely on disk."""
    done = root / f"layer_{layer}.json"
    return int(json.loads(done.read_text())["done"]) if done.is_file() else 0


def _write(root: Path, layer: int, maps: Tensor, start: int, total: int) -> None:
    """Append one chunk, and only then say that it is there."""
    path = _path(root, layer)
    mark = root / f"layer_{layer}.json"
    shape = (total, *maps.shape[1:])
    if start == 0 or not path.is_file():
        mark.unlink(missing_ok=True)  # of a file that was begun before, with fewer layers
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    else:
        file = np.load(path, mmap_mode="r+")
    file[start : start + len(maps)] = maps.clamp(-_LARGEST, _LARGEST).cpu().numpy()
    file.flush()
    (temporary := mark.with_suffix(".tmp")).write_text(json.dumps({"done": start + len(maps)}))
    temporary.replace(mark)
