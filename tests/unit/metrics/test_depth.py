import pytest
import torch

from unimm.metrics.depth import affine_align, depth_errors, fit_affine


def test_errors_of_a_hand_made_picture():
    target = torch.tensor([[[1.0, 2.0], [4.0, 9.0]]])
    depth = torch.tensor([[[1.2, 1.0], [4.0, 0.0]]])
    mask = torch.tensor([[[True, True], [True, False]]])
    errors = depth_errors(depth, target, mask)
    assert float(errors["abs_rel"]) == pytest.approx((0.2 + 0.5 + 0) / 3)
    assert float(errors["rmse"]) == pytest.approx(((0.04 + 1) / 3) ** 0.5)
    assert float(errors["delta1"]) == pytest.approx(2 / 3)  # 1.2 < 1.25 < 2


def test_alignment_undoes_any_scale_and_shift():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 8, 8, generator=generator).double() + 1
    mask = torch.rand(3, 8, 8, generator=generator) > 0.3
    skewed = 0.01 * target - 40
    skewed[~mask] = 1e6  # what is not scored must not pull
    aligned = affine_align(skewed, target, mask)
    assert torch.allclose(aligned[mask], target[mask], atol=1e-6)
    # The constant that fits best is the mean.
    scale, shift = fit_affine(torch.ones(3, 8, 8).double(), target, mask)
    assert torch.equal(scale, torch.zeros(3).double())
    assert float(shift[0]) == pytest.approx(float(target[0][mask[0]].mean()), rel=1e-5)
