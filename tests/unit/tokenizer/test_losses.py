"""What the image tokenizer's losses reward."""

from pathlib import Path

import pytest
import torch

from unimm.tokenizer.losses import (
    LossConfig,
    PatchDiscriminator,
    PerceptualLoss,
    adaptive_weight,
    discriminator_loss,
    pixel_weights,
    reconstruction_loss,
)


def pictures(num: int = 2) -> torch.Tensor:
    return torch.rand(num, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_plain_terms_equal_their_definitions() -> None:
    target = torch.zeros(2, 3, 16, 16)
    config = LossConfig(l1=1, l2=2, gradient=0.5, coarse=0.25)
    # A constant shift has no edges: |d| + 2 d^2 + 0 + .25 |d|.
    loss = reconstruction_loss(target + 0.1, target, None, config)
    assert loss.item() == pytest.approx(0.1 + 2 * 0.01 + 0.25 * 0.1, rel=1e-5)
    stripes = target.clone()
    stripes[..., ::2] = 0.1
    edges = reconstruction_loss(stripes, target, None, LossConfig(l1=0, l2=0, gradient=1, coarse=0))
    assert edges.item() == pytest.approx(0.1, rel=1e-5)


def test_figures_count_more_and_the_mean_weight_is_one() -> None:
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, :4] = True
    weight = pixel_weights(mask, 5.0)
    assert weight.mean().item() == pytest.approx(1.0)
    assert (weight[0, 0, 0, 0] / weight[0, 0, -1, 0]).item() == pytest.approx(5.0)
    target = pictures()
    inside, outside = target.clone(), target.clone()
    inside[:, :, 1] += 0.1
    outside[:, :, 9] += 0.1
    config = LossConfig()
    assert reconstruction_loss(inside, target, weight, config) > 4 * reconstruction_loss(
        outside, target, weight, config
    )


def test_discriminator_learns_real_from_drawn() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(width=8)
    assert discriminator(pictures()).shape == (2, 1, 2, 2)
    optimizer = torch.optim.AdamW(discriminator.parameters(), lr=1e-2)
    real, drawn = pictures(8), torch.zeros(8, 3, 16, 16)
    first = discriminator_loss(discriminator(real), discriminator(drawn)).item()
    for _ in range(20):
        loss = discriminator_loss(discriminator(real), discriminator(drawn))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * first


def test_adaptive_weight_balances_the_two_pulls() -> None:
    reconstruction, adversarial = torch.full((2, 3, 4, 4), 0.3), torch.full((2, 3, 4, 4), 0.1)
    assert adaptive_weight(reconstruction, adversarial).item() == pytest.approx(3.0, rel=1e-3)
    assert adaptive_weight(reconstruction, torch.zeros_like(adversarial)) <= 1e4


def test_perceptual_loss_reads_a_local_vision_model(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(tmp_path)
    perceptual = PerceptualLoss(tmp_path)
    x = torch.nn.functional.interpolate(pictures(), scale_factor=4.0)
    noisy = (x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))).clamp(
        -1, 1
    )
    torch.testing.assert_close(perceptual(x, x), torch.zeros(2))
    assert (perceptual(noisy, x) > 0).all()
    noisy.requires_grad_(True)
    perceptual(noisy, x).sum().backward()
    assert noisy.grad is not None and noisy.grad.abs().sum() > 0


def test_perceptual_loss_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="needs perceptual_model"):
        LossConfig(perceptual=0.1)
    with pytest.raises(ValueError, match="does not exist"):
        PerceptualLoss("no/such/folder")
