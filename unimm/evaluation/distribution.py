"""How near a set of generated pictures is to real ones, in the features of a named extractor."""

from collections.abc import Iterable

import torch
from torch import Generator, Tensor

from unimm.judges.extractors import Extractor
from unimm.metrics.frechet import frechet_distance
from unimm.metrics.kernel import kernel_distance
from unimm.metrics.neighbours import authenticity, nearest_ratio, precision_recall


def features_of(extractor: Extractor, batches: Iterable[Tensor]) -> Tensor:
    """Features of many pictures, ``(N, D)``, where the pictures lie.

    They stay there: what is measured on them takes long on a CPU and next to nothing on a GPU.
    """
    return torch.cat([extractor(pixels) for pixels in batches])


def compare_features(
    real: Tensor, generated: Tensor, *, train: Tensor | None = None, name: str, seed: int
) -> dict[str, float]:
    """Every measure between two sets of pictures, named by the extractor.

    Args:
        real: ``(N, D)`` features of real pictures that nothing was trained on.
        generated: ``(M, D)`` features of generated ones, about as many.
        train: features of the pictures that the generator was trained on, to find copies.
        name: of the extractor.
        seed: of the kernel distance's subsets.

    Returns:
        ``frechet_NAME``, ``kernel_NAME`` with its ``_std``, ``precision_NAME``, ``recall_NAME``,
        and, where training pictures are given, ``authentic_NAME`` and ``nearest_ratio_NAME``.

    Raises:
        ValueError: too few pictures for the width of the features.
    """
    kernel = kernel_distance(real, generated, generator=Generator().manual_seed(seed))
    precision, recall = precision_recall(real, generated)
    scores = {
        f"frechet_{name}": frechet_distance(real, generated),
        f"kernel_{name}": kernel.mean,
        f"kernel_{name}_std": kernel.std,
        f"precision_{name}": precision,
        f"recall_{name}": recall,
    }
    if train is not None:
        scores[f"authentic_{name}"] = authenticity(train, generated)
        scores[f"nearest_ratio_{name}"] = nearest_ratio(train, real, generated)
    return scores
