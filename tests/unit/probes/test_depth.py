from dataclasses import replace

import pytest
import torch

from unimm.data.labelled.sets import LabelledPictures
from unimm.probes.dense_heads import DenseHeadConfig, join_maps
from unimm.probes.depth import depth_row
from unimm.probes.depth_loss import bin_centres, depth_of_bins, gradient_loss, silog
from unimm.probes.probe import ProbeResult


def test_bins_and_their_mixture():
    assert bin_centres(1, 16, 5, "log").tolist() == pytest.approx([1, 2, 4, 8, 16])
    assert bin_centres(1, 5, 5, "uniform").tolist() == pytest.approx([1, 2, 3, 4, 5])
    logits = torch.tensor([-3.0, 0.9, -5.0]).view(1, 3, 1, 1)  # weights .1, 1, .1
    found = depth_of_bins(logits, torch.tensor([1.0, 2.0, 4.0]))
    assert float(found) == pytest.approx((0.1 + 2 + 0.4) / 1.2)
    shares = logits.view(3).softmax(0)
    sharp = depth_of_bins(logits, torch.tensor([1.0, 2.0, 4.0]), "softmax")
    assert float(sharp) == pytest.approx(float(shares @ torch.tensor([1.0, 2.0, 4.0])))


def test_silog_forgives_a_part_of_the_scale():
    target = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    mask = torch.ones_like(target, dtype=torch.bool)
    assert float(silog(target, target, mask)) < 1e-5
    scaled = float(silog(1.5 * target, target, mask))
    assert scaled == pytest.approx(0.15**0.5 * torch.tensor(1.5).log().item(), rel=1e-2)
    noisy = target * (1 + 0.3 * torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(1)))
    assert float(silog(noisy.clamp(min=0.1), target, mask)) > scaled
    mask[:, 4:] = False
    spoilt = target.clone()
    spoilt[:, 4:] = 100.0
    assert float(silog(spoilt, target, mask)) < 1e-5


def test_gradient_loss_sees_edges_not_offsets():
    target = torch.ones(1, 16, 16)
    target[:, :, 8:] = 4.0
    mask = torch.ones_like(target, dtype=torch.bool)
    assert float(gradient_loss(3 * target, target, mask)) < 1e-2
    assert float(gradient_loss(torch.ones_like(target), target, mask)) > 0.3


@pytest.mark.parametrize("kind", ["linear", "dpt"])
def test_heads_upsample_layers_of_any_grid(kind):
    torch.manual_seed(0)
    head = DenseHeadConfig(kind=kind, width=16).build([5, 7, 3], 4)
    maps = [torch.randn(2, 5, 8, 8), torch.randn(2, 7, 4, 4), torch.randn(2, 3, 4, 4)]
    assert head(maps).shape == (2, 4, 16, 16)  # four times the coarsest
    head(maps).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in head.parameters() if p.ndim > 1)
    assert join_maps(maps).shape == (2, 15, 8, 8)


def test_a_row_is_the_mean_over_pictures():
    depth = torch.tensor([[[1.0, 2.0]], [[4.0, 4.0]]])
    known = torch.tensor([[[True, True]], [[True, False]]])
    part = LabelledPictures(
        pixels=torch.zeros(2, 3, 1, 2, dtype=torch.uint8), depth=depth, has_depth=known
    )
    row = depth_row(part, [2 * depth[:1], depth[1:]])
    assert row["AbsRel"] == 0.5 and row["delta1"] == 0.5  # pictures weigh the same
    assert row["AbsRel, aligned"] < 1e-6 and row["delta1, aligned"] == 1


def test_a_result_without_controls_is_refused():
    with pytest.raises(ValueError, match="must show its controls"):
        ProbeResult(table={"features": {"linear": 1.0}}, controls=(), score="linear")
    with pytest.raises(ValueError, match="missing: \\['chance'\\]"):
        ProbeResult(table={"features": {}}, controls=("chance",), score="linear")


def test_a_result_says_which_controls_are_beaten():
    table = {
        "one": {"e": 5.0},
        "ours": {"e": 0.1},
        "a": {"e": 0.2},
        "b": {"e": 0.1},
        "top": {"e": 0},
    }
    result = ProbeResult(
        table=table,
        controls=("a", "b", "top"),
        score="e",
        is_error=True,
        subject="ours",
        ceilings=("top",),
    )
    assert result.beaten() == {"a": True, "b": False}
    assert replace(result, is_error=False).beaten() == {"a": False, "b": False}
    assert replace(result, subject="", is_error=False).beaten() == {"a": True, "b": True}


def test_the_loss_of_places_without_truth_is_nothing():
    """Equal to the formula on the places that have truth."""
    generator = torch.Generator().manual_seed(0)
    depth, target = (torch.rand(2, 4, 5, generator=generator) + 1 for _ in range(2))
    mask = torch.rand(2, 4, 5, generator=generator) < 0.5
    gap = ((depth + 1e-3).log() - (target + 1e-3).log())[mask]
    wanted = (gap.var() + 0.15 * gap.mean().square()).sqrt()
    assert torch.allclose(silog(depth, target, mask), wanted)
    wild = torch.where(mask, depth, 1e3)
    assert torch.allclose(silog(wild, target, mask), wanted)
