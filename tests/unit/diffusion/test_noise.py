import torch

from unimm.diffusion.noise import multi_resolution_noise


def test_noise_is_standard_and_coarse_where_asked():
    generator = torch.Generator().manual_seed(0)
    strength = torch.cat([torch.zeros(64), torch.full((64,), 0.9)])
    noise = multi_resolution_noise((128, 4, 16, 16), strength, generator=generator)
    assert abs(float(noise.std()) - 1) < 0.05
    means = noise.mean((2, 3)).std(1)  # of whole channels
    assert float(means[:64].mean()) < 0.1 < 0.3 < float(means[64:].mean())
    again = multi_resolution_noise(
        (128, 4, 16, 16), strength, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(noise, again)
