"""Pictures as bytes."""

import torch

from unimm.tokenizer.pixels import begin_copy, to_levels


def test_levels_are_rounded_bounded_and_channels_last() -> None:
    pixels = torch.tensor([-1.2, -1.0, 0.0, 0.999, 1.0, 1.2]).expand(2, 3, 4, 6)
    levels = to_levels(pixels)
    assert levels.shape == (2, 4, 6, 3) and levels.is_contiguous()
    assert levels[1, 3, :, 2].tolist() == [0, 0, 128, 255, 255, 255]
    assert torch.equal(torch.from_numpy(begin_copy(levels)()), levels)
