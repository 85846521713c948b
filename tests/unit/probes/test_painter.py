import pytest
import torch
from pipelines import tiny_pipeline

from unimm.data.labelled.sets import LabelledPictures
from unimm.metrics.depth import affine_align
from unimm.probes.depth_ensemble import ensemble_depth
from unimm.probes.depth_painter import (
    DepthPainter,
    PainterTrainConfig,
    affine_invariant_loss,
    train_painter,
    widen_input,
)
from unimm.probes.painted import depth_picture_of, painted_row


def maps(count: int = 4, side: int = 16) -> torch.Tensor:
    """Smooth maps from 1 to about 8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 1, 3, 3, generator=generator) * 7 + 1
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")[:, 0]


@pytest.fixture()
def painter():
    torch.manual_seed(0)
    return DepthPainter(tiny_pipeline("diffusion"))


def test_a_widened_denoiser_begins_as_the_old_one(painter):
    """Both inputs alike give what one gave."""
    head = painter.pipeline.model.objective("diffusion").denoiser
    x, t = torch.randn(2, 4, 4, 4), torch.tensor([0.2, 0.7])
    told = painter.told.expand(2, -1, -1)
    wide = widen_input(head)(torch.cat([x, x], 1), t, told).velocity
    assert torch.allclose(wide, head(x, t, told).velocity, atol=1e-5)
    assert not head.input.weight.requires_grad and head.input.in_features == 4


def test_depth_becomes_a_picture_between_its_quantiles():
    depth = maps()
    mask = torch.ones_like(depth, dtype=torch.bool)
    mask[:, :4] = False
    depth[:, :4] = 1000.0
    shown = depth_picture_of(depth, mask)
    assert shown.shape == (4, 3, 16, 16) and (shown[:, :, :4] == -1).all()
    kept = shown[:, 0][mask]
    assert kept.min() == -1 and kept.max() == 1
    assert 0.01 < float((kept == 1).float().mean()) < 0.05
    nearest = depth[0].argmin()
    assert shown[0, 0].flatten()[nearest] == 1
    # A factor and an exponent leave no trace.
    assert torch.allclose(depth_picture_of(100 * depth**1.5, mask), shown, atol=1e-4)


def test_painted_depth_is_scored_after_factor_and_exponent():
    depth = maps()
    mask = torch.ones_like(depth, dtype=torch.bool)
    part = LabelledPictures(
        pixels=torch.zeros(4, 3, 16, 16, dtype=torch.uint8), depth=depth, has_depth=mask
    )
    nearness = -depth.log()
    assert painted_row(part, 0.3 * nearness + 2)["AbsRel, aligned"] < 1e-4
    wrong = painted_row(part, nearness.flip(1))
    assert wrong["AbsRel, aligned"] > 0.1 and wrong["delta1, aligned"] < 0.9


def test_loss_forgets_scale_and_shift():
    depth = maps()
    mask = torch.rand(depth.shape, generator=torch.Generator().manual_seed(1)) > 0.2
    assert float(affine_invariant_loss(-3 * depth + 2, depth, mask)) < 1e-4
    assert float(affine_invariant_loss(depth.flip(2), depth, mask)) > 0.1


def test_an_ensemble_is_better_than_its_members():
    """Noisy members in units of their own; one of them is wild."""
    generator = torch.Generator().manual_seed(2)
    truth = maps(3)
    scales = torch.rand(9, 3, 1, 1, generator=generator) + 0.5
    noise = 0.6 * torch.randn(9, 3, 16, 16, generator=generator)
    members = scales * (truth + noise) - 2
    members[0] = torch.rand(3, 16, 16, generator=generator)
    middle, spread = ensemble_depth(members)
    mask = torch.ones_like(truth, dtype=torch.bool)

    def error(x: torch.Tensor) -> float:
        return float((affine_align(x, truth, mask) - truth).abs().mean())

    assert error(middle) < 0.6 * min(error(member) for member in members)
    assert spread.shape == middle.shape and (spread > 0).all()
    alone, nothing = ensemble_depth(truth[None])
    assert error(alone) < 1e-4 and not nothing.any()


@pytest.mark.parametrize("is_one_step", [False, True])
def test_training_lowers_the_loss_and_moves_the_denoiser_only(painter, is_one_step):
    depth = maps(8)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    part = LabelledPictures(
        pixels=pixels, depth=depth, has_depth=torch.ones_like(depth, dtype=torch.bool)
    )
    before = {k: v.clone() for k, v in painter.pipeline.model.state_dict().items()}

    def one_step_error() -> float:
        with torch.no_grad():
            found = painter.paint_at_once(painter.encode(pixels.float() / 127.5 - 1))
        return float(affine_invariant_loss(found, depth, part.need("has_depth")))

    first = one_step_error()
    config = PainterTrainConfig(num_steps=30, batch_size=8, learning_rate=3e-3)
    train_painter(painter, part, config, is_one_step=is_one_step, seed=0, show_progress=False)
    if is_one_step:
        assert one_step_error() < 0.95 * first  # little: the tokenizer is untrained
    assert painter.paint(
        painter.encode(pixels.float() / 127.5 - 1),
        num_steps=2,
        generator=torch.Generator().manual_seed(0),
    ).shape == (8, 16, 16)
    after = painter.pipeline.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert painter.told.requires_grad is False


def test_other_objectives_are_refused():
    with pytest.raises(ValueError, match="needs a model with the diffusion objective"):
        DepthPainter(tiny_pipeline("next_token"))
