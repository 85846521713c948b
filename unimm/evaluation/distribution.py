"""How near a set of generated pictures is to real ones, in the features of a named extractor."""

from collections.abc import Iterable, Sequence

import torch
from torch import Generator, Tensor

from unimm.judges.extractors import Extractor
from unimm.metrics.frechet import frechet_distance
from unimm.metrics.kernel import kernel_distance
from unimm.metrics.neighbours import authenticity, nearest_ratio, precision_recall


def _extract(extractor: Extractor, batches: Iterable[Tensor]) -> Tensor:
    """Features of many pictures, ``(N, D)`` on the CPU."""
    return torch.cat([extractor(pixels).cpu() for pixels in batches])


def compare_pictures(
    extractor: Extractor,
    *,
    real: Sequence[Tensor],
    generated: Sequence[Tensor],
    train: Sequence[Tensor] = (),
    seed: int,
) -> dict[str, float]:
    """Every measure between two sets of pictures, named by the extractor.

    Args:
        extractor: whose features are compared.
        real: batches of real pictures that nothing was trained on.
        generated: batches of generated ones, about as many.
        train: batches of the pictures that the generator was trained on, to find copies.
        seed: of the kernel distance's subsets.

    Returns:
        ``frechet_NAME``, ``kernel_NAME`` with its ``_std``, ``precision_NAME``, ``recall_NAME``,
        and, where training pictures are given, ``authentic_NAME`` and ``nearest_ratio_NAME``.

    Raises:
        ValueError: too few pictures for the width of the features.
    """
    name = extractor.name
    truth, drawn = _extract(extractor, real), _extract(extractor, generated)
    kernel = kernel_distance(truth, drawn, generator=Generator().manual_seed(seed))
    precision, recall = precision_recall(truth, drawn)
    scores = {
        f"frechet_{name}": frechet_distance(truth, drawn),
        f"kernel_{name}": kernel.mean,
        f"kernel_{name}_std": kernel.std,
        f"precision_{name}": precision,
        f"recall_{name}": recall,
    }
    if train:
        shown = _extract(extractor, train)
        scores[f"authentic_{name}"] = authenticity(shown, drawn)
        scores[f"nearest_ratio_{name}"] = nearest_ratio(shown, truth, drawn)
    return scores
