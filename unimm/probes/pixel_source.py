"""Raw pixels as a source of features: the control that every probe is seen beside."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from unimm.probes.spec import FeatureSpec

PIXEL_GRID = 16  # places a side


class PixelSource:
    """No network: each place of a grid holds the pixels around it."""

    is_noisy = False
    num_layers = 1

    def __init__(self) -> None:
        self.network: nn.Module = nn.Identity()

    def prepare(self, pixels: Tensor) -> Tensor:
        """Nothing is done."""
        return pixels

    def __call__(
        self, shown: Tensor, spec: FeatureSpec, layers: Sequence[int]
    ) -> tuple[Tensor, ...]:
        """``(B, 3 p p, grid, grid)`` with patches of ``p`` pixels a side."""
        side = min(PIXEL_GRID, shown.shape[-1])
        p = -(-shown.shape[-1] // side)
        if shown.shape[-1] != p * side:
            shown = functional.interpolate(shown, size=(p * side, p * side), mode="bilinear")
        return tuple(functional.pixel_unshuffle(shown, p) for _ in layers)
