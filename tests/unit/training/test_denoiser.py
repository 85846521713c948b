"""A denoiser built while DeepSpeed cuts every layer up (ZeRO 3) still starts as zero."""

from typing import get_args

import deepspeed
import pytest
import torch
from deepspeed import zero

from unimm.nn.denoiser import Denoiser, DenoiserConfig
from unimm.nn.dit_blocks import Conditioning
from unimm.training.engine import choose_device

CONFIG = {"train_batch_size": 1, "zero_optimization": {"stage": 3}}


@pytest.mark.parametrize("conditioning", get_args(Conditioning))
def test_zero_3_init_keeps_the_zeros(conditioning):
    choose_device("cpu")
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it compiles, for minutes
    config = DenoiserConfig(dim=32, depth=2, num_heads=2, conditioning=conditioning)
    with zero.Init(config_dict_or_path=CONFIG, dtype=torch.float32):
        model = Denoiser(config, latent_dim=4, context_dim=8)
    parameters = list(model.parameters())
    assert all(hasattr(p, "ds_tensor") and p.numel() == 0 for p in parameters)  # really cut up
    with zero.GatheredParameters(parameters):
        assert not model.output.weight.any() and not model.output.bias.any()
        assert model.input.weight.any()
        plain = Denoiser(config, latent_dim=4, context_dim=8)
        plain.load_state_dict({k: v.detach().clone() for k, v in model.state_dict().items()})
    x, context = torch.randn(2, 4, 4, 4), torch.randn(2, 16, 8)
    assert not plain(x, torch.rand(2), context).velocity.any()
    if conditioning in ("adaln_zero", "mmdit"):
        for block in plain.blocks:
            x, context, condition = torch.randn(3, 2, 16, 32).unbind(0)
            found, told = block(x, context, condition)
            assert torch.equal(found, x) and torch.equal(told, context)
