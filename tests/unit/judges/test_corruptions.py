import torch
from torch.nn import functional

from unimm.judges.corruptions import CORRUPTIONS, corrupt


def smooth_pictures(num: int) -> torch.Tensor:
    torch.manual_seed(0)
    return functional.interpolate(torch.rand(num, 3, 8, 8) * 2 - 1, size=64, mode="bilinear")


def test_each_corruption_hurts_more_when_stronger_and_keeps_the_range() -> None:
    pixels = smooth_pictures(4)
    for name, (function, low, high) in CORRUPTIONS.items():
        errors = []
        for strength in (low, high):
            generator = torch.Generator().manual_seed(1)
            hurt = function(pixels, torch.full((4,), strength), generator)
            assert hurt.shape == pixels.shape and hurt.abs().max() <= 1 + 1e-4, name
            errors.append(float((hurt - pixels).abs().mean()))
        assert 0 < errors[0] < errors[1], (name, errors)


def test_corrupt_keeps_the_order_and_uses_the_tokenizer_for_half() -> None:
    pixels = smooth_pictures(8)
    hurt = corrupt(pixels, torch.Generator().manual_seed(0), reconstruct=lambda x: x)
    assert torch.equal(hurt[:4], pixels[:4])  # this tokenizer is perfect
    distance = (hurt[:, None] - pixels[None]).square().flatten(2).mean(2)
    assert torch.equal(distance.argmin(1), torch.arange(8))
