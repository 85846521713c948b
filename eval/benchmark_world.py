"""Measure how fast Storyworld is drawn: scenes sampled and pictures a second.

    python eval/benchmark_world.py
    python eval/benchmark_world.py --device cuda --batch-size 1024 --name world_speed_gpu

Writes the ledger ``docs/results/NAME.json``. One CPU thread, so figures are for one core.
"""

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import tyro

from unimm.data.world.placement import place
from unimm.data.world.render import Renderer, pack_scenes
from unimm.data.world.scene import (
    CHARACTER_TINTS,
    HEADWEAR,
    NO_HEADWEAR,
    OBJECT_TINTS,
    OBJECTS,
    SPECIES,
    Figure,
    Scene,
    sample_rng,
)
from unimm.ledger import describe_hardware, write_ledger

# Characters and objects of a picture, as a story shows them.
CASTS = ((1, 0), (1, 1), (2, 0), (0, 2), (0, 3), (1, 1))


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to measure."""

    device: str = "cpu"
    """Where pictures are drawn; scenes are always sampled on one CPU core."""
    batch_size: int = 64
    """Scenes drawn at once."""
    seconds: float = 2.0
    """How long each figure is measured."""
    seed: int = 0
    """Seed of the scenes."""
    name: str = "world_speed"
    """Name of the ledger."""


def figure(rng: np.random.Generator, is_character: bool) -> Figure:
    kinds = [*SPECIES] if is_character else [*OBJECTS]
    tints = CHARACTER_TINTS if is_character else OBJECT_TINTS
    hats = (NO_HEADWEAR, *HEADWEAR) if is_character else (NO_HEADWEAR,)
    kind, tint, hat = (names[rng.integers(len(names))] for names in (kinds, tints, hats))
    return Figure(kind=kind, tint=tint, headwear=hat)


def scene_of(seed: int, index: int) -> Scene:
    rng = sample_rng(seed, 0, index)
    while True:
        characters, objects = CASTS[rng.integers(len(CASTS))]
        cast = [figure(rng, k < characters) for k in range(characters + objects)]
        try:
            return place(rng, cast)
        except ValueError:  # no room for these: draw others
            continue


def rate(draw: Callable[[], int], seconds: float, device: str) -> float:
    """How many things a second ``draw`` makes, which says how many it made."""
    draw()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        count += draw()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return round(count / (time.perf_counter() - start), -1)


def main(arguments: Arguments) -> None:
    torch.set_num_threads(1)
    scenes = [scene_of(arguments.seed, k) for k in range(arguments.batch_size)]
    packed = pack_scenes(scenes)
    renderer = Renderer(device=arguments.device)

    def sample() -> int:
        for k in range(64):
            scene_of(arguments.seed, k)
        return 64

    def pack() -> int:
        return len(pack_scenes(scenes))

    def draw(size: int, only_rgb: bool) -> int:
        return len(renderer.render_packed(packed, size=size, only_rgb=only_rgb).rgb)

    measure = {"scenes sampled": sample, "scenes packed": pack}
    for size in (32, 64, 128):
        measure[f"{size} px, pictures"] = lambda size=size: draw(size, True)
        measure[f"{size} px, with all truth"] = lambda size=size: draw(size, False)
    speeds = {}
    for name, function in measure.items():
        speeds[name] = rate(function, arguments.seconds, arguments.device)
        print(f"{name:24s} {speeds[name]:10,.0f} a second")
    path = write_ledger(
        arguments.name,
        command=shlex.join(["python", *sys.argv]),
        seed=arguments.seed,
        figures={"images_per_second": speeds, "batch_size": arguments.batch_size},
        hardware=describe_hardware(arguments.device),
    )
    print(f"wrote {path}")


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
