"""How far the pictures of a run, as a set, are from real ones: quality beside fidelity.

Fidelity alone is easily bought with guidance, at the price of quality and variety. Real pictures
are renders for other prompts of the same tasks. The references are measured alike: true renders
give the floor of each distance at this number of pictures, which is not 0.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image

from unimm.data.world.render import Renderer
from unimm.evaluation.distribution import compare_features, features_of
from unimm.evaluation.picture_config import PictureRunConfig
from unimm.evaluation.picture_references import CEILING, CEILING_AFTER, NEAREST, Rows, true_scenes
from unimm.evaluation.picture_requests import PictureRequest
from unimm.evaluation.pictures import pixel_batches, render_pictures
from unimm.evaluation.worldeval import sample_requests
from unimm.judges.extractors import Extractor

REAL_SEED_OFFSET = 2_000_003  # real pictures are of other prompts than the judged ones
GENERATED = "generated"


def compare_run(
    extractor: Extractor,
    requests: Sequence[PictureRequest],
    rows: Rows,
    references: Mapping[str, Rows | None],
    config: PictureRunConfig,
    *,
    size: int,
    device: torch.device | str,
    tell: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """Measure the generated pictures and the references against real ones, split by split.

    Args:
        extractor: whose features are compared.
        requests: what was asked for.
        rows: the generated pictures of each request; the first of each is taken.
        references: pictures of each reference, see ``make_references``.
        config: the run.
        size: side of the pictures in pixels.
        device: of renderer and extractor.
        tell: called with a line when there are too few pictures for a split.

    Returns:
        ``generated, seen`` and so on -> the measures of ``compare_features`` and the number of
        pictures. Empty where there are too few.
    """
    sets: dict[str, Rows | None] = {GENERATED: rows}
    sets |= {name: references[name] for name in (CEILING, CEILING_AFTER, NEAREST)}
    table: dict[str, dict[str, float]] = {}
    for split in config.splits:
        renders = _real_pictures(config, split, size=size, device=device)
        real = features_of(extractor, pixel_batches(renders, device))
        for name, pictures in sets.items():
            chosen = _first_pictures(requests, pictures or [], split)
            if not chosen:
                continue
            try:
                measures = compare_features(
                    real,
                    features_of(extractor, pixel_batches(chosen, device)),
                    name=extractor.name,
                    seed=config.seed,
                )
            except ValueError as error:  # fewer pictures than features are wide
                tell(f"no distribution of {name}, {split}: {error}")
                break
            rounded = {key: float(f"{value:.4g}") for key, value in measures.items()}
            table[f"{name}, {split}"] = rounded | {"pictures": len(chosen)}
    return table


def _real_pictures(
    config: PictureRunConfig, split: str, *, size: int, device: torch.device | str
) -> list[Image.Image]:
    requests = [
        request
        for tag in config.tasks
        for request in sample_requests(
            tag,
            split,
            num=config.num_prompts,
            seed=config.seed + REAL_SEED_OFFSET,
            styles=config.styles,
        )
    ]
    return render_pictures(true_scenes(requests), Renderer(device=device), size=size)


def _first_pictures(
    requests: Sequence[PictureRequest], rows: Rows, split: str
) -> list[Image.Image]:
    return [
        row[0].picture
        for request, row in zip(requests, rows, strict=False)
        if request.split == split and row[0].picture is not None
    ]
