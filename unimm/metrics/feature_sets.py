"""What every measure between two sets of features asks of them.

Shapes: N pictures, D width of their features.
"""

from torch import Tensor


def check_features(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets in float64, ``(N, D)`` and ``(M, D)``, or an error that says what is wrong.

    Distances are small differences of large sums: half of float32's digits would be lost.

    Raises:
        ValueError: a set is not a matrix, is empty, or not finite, or the widths differ.
    """
    for name, features in (("real", real), ("generated", generated)):
        if features.ndim != 2 or not len(features):
            raise ValueError(
                f"{name} features are {tuple(features.shape)}; give one row a picture, (N, D)"
            )
        if not features.isfinite().all():
            rows = int((~features.isfinite()).any(1).sum())
            raise ValueError(f"{rows} of {len(features)} {name} features are not finite; drop them")
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            f"features are {real.shape[1]} and {generated.shape[1]} wide; use one extractor"
        )
    return real.double(), generated.double()
