"""PSNR and SSIM against their definitions."""

import math

import pytest
import torch

from unimm.metrics.image import psnr, score_pictures, ssim, summarize_scores


def pictures(num: int = 3, side: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(num, 3, side, side, generator=generator) * 2 - 1


def test_psnr_of_a_known_error() -> None:
    target = torch.zeros(2, 3, 8, 8)
    shifted = target + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    # The range is 2, so an error of .2 is a tenth of it: 20 dB.
    torch.testing.assert_close(psnr(shifted, target), torch.tensor([20.0, 40.0]))


def test_psnr_counts_only_what_the_mask_shows() -> None:
    target = torch.zeros(1, 3, 8, 8)
    drawn = target.clone()
    drawn[:, :, :4] = 0.2
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[:, :2] = True
    torch.testing.assert_close(psnr(drawn, target, mask), torch.tensor([20.0]))
    assert psnr(drawn, target, ~mask) > 20.5
    assert psnr(drawn, target, torch.zeros_like(mask)).isnan().all()


def test_ssim_is_one_for_equal_and_falls_with_noise() -> None:
    x = pictures()
    torch.testing.assert_close(ssim(x, x), torch.ones(3))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    little, much = ssim(x, x + 0.1 * noise), ssim(x, x + 0.5 * noise)
    assert (much < little).all() and (little < 1).all()


def test_ssim_matches_its_definition_in_one_window() -> None:
    a, b = pictures(1, 11), pictures(2, 11)[1:]
    offsets = torch.arange(11) - 5.0
    line = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = torch.outer(line, line)
    window = window / window.sum()
    expected = []
    for x, y in zip(a[0], b[0], strict=True):
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
        cov = (window * (x - mx) * (y - my)).sum()
        c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
        top = (2 * mx * my + c1) * (2 * cov + c2)
        expected.append(top / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    torch.testing.assert_close(ssim(a, b)[0], torch.stack(expected).mean())


def test_ssim_refuses_pictures_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="smaller than the window"):
        ssim(pictures(1, 8), pictures(1, 8))


def test_summary_leaves_out_pictures_without_figures() -> None:
    target = torch.zeros(2, 3, 16, 16)
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[0, :4] = True
    summary = summarize_scores([score_pictures(target + 0.2, target, mask)])
    assert math.isclose(summary["psnr_figures"], 20, abs_tol=1e-3)
    assert math.isclose(summary["psnr_figures_pooled"], 20, abs_tol=1e-3)
    assert "psnr_figures" not in summarize_scores([score_pictures(target, target, None)])
