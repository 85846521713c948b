"""Fused steps of the trunk against its layers, float32 and bfloat16.

TRITON_INTERPRET=1 runs them on a CPU where Triton is installed.
"""

from typing import Any

import pytest
import torch
from kernel_device import DEVICE, KERNEL_MARKS

from unimm.nn.kv_cache import KVCache
from unimm.nn.transformer import Backbone, BackboneConfig

pytestmark = KERNEL_MARKS


def backbone_of(dtype: torch.dtype, **changes) -> Backbone:
    sizes: dict[str, Any] = {
        "dim": 64,
        "depth": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "ffn_dim": 176,
    }
    torch.manual_seed(0)
    backbone = Backbone(BackboneConfig(**(sizes | changes))).to(DEVICE, dtype).eval()
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
        if parameter.ndim > 1:
            parameter.mul_(6)
        else:
            parameter.add_(0.3 * torch.randn_like(parameter))
    return backbone


def cache_of(backbone: Backbone, rows: int, dtype: torch.dtype) -> KVCache:
    config = backbone.config
    return KVCache(
        depth=config.depth,
        num_rows=rows,
        num_kv_heads=config.num_kv_heads,
        max_length=192,
        head_dim=config.head_width,
        dtype=dtype,
        device=DEVICE,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_rows", "num_new", "is_causal", "changes"),
    [
        (1, 1, True, {}),
        (2, 1, True, {}),
        (3, 1, True, {"num_kv_heads": 4}),
        (6, 1, True, {}),
        (2, 1, True, {"use_qk_norm": False}),
        (2, 1, True, {"dim": 1040, "head_dim": 16, "depth": 1}),
        (4, 1, True, {"head_dim": 64, "ffn_dim": 688, "depth": 1}),
        (2, 1, True, {"head_dim": 128, "num_kv_heads": 1, "depth": 1}),
        (5, 1, True, {"head_dim": 64, "num_kv_heads": 1, "depth": 1}),
        (2, 3, True, {}),
        (3, 4, False, {}),
        (2, 4, False, {"use_qk_norm": False, "head_dim": 32}),
    ],
)
def test_fused_steps_are_those_of_the_layers(dtype, num_rows, num_new, is_causal, changes):
    from unimm.nn.fused_layers import run_fused

    backbone = backbone_of(dtype, **changes)
    if num_rows % 2:  # matrices that lie together are multiplied as one
        backbone.lay_together()
    plain, fused = (cache_of(backbone, num_rows + 1, dtype) for _ in range(2))
    rows = list(range(1, num_rows + 1))
    generator = torch.Generator().manual_seed(0)
    history = 0.5 * torch.randn(plain.keys.shape, generator=generator)
    for cache in (plain, fused):
        cache.keys.copy_(history)
        cache.values.copy_(-history)
        # One row is empty; one ends a tile of 128.
        cache.advance(rows, [0, 127, 150, 30, 5, 1][:num_rows])
    with torch.no_grad():
        for step in range(3):
            x = torch.randn(num_rows, num_new, backbone.config.dim, generator=generator)
            x = x.to(DEVICE, dtype)
            given = x.clone()
            positions = torch.randint(0, 900, (num_rows, num_new, 3), generator=generator)
            positions = positions.to(DEVICE)
            found = []
            for run, cache in ((backbone, plain), (None, fused)):
                view = cache.view(rows, num_new, is_causal=is_causal)
                if run is None:
                    found.append(run_fused(backbone, x, positions, view))
                else:
                    found.append(run(x, positions, cache=view))
                cache.advance(rows, [num_new] * num_rows)
            assert torch.equal(x, given)
            expected, got = (y.float() for y in found)
            assert expected.std() > 0.1
            error = float((expected - got).norm() / expected.norm())
            assert error < (1e-4 if dtype == torch.float32 else 3e-2), (step, error)
            for name in ("keys", "values"):
                pair = [getattr(cache, name).float() for cache in (plain, fused)]
                torch.testing.assert_close(
                    *pair, atol=1e-4 if dtype == torch.float32 else 0.2, rtol=0.05
                )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 4])
@pytest.mark.parametrize("blocks", [(1, 1, None), (4, 4, 80), (16, 8, None)])
def test_products_of_a_few_rows_are_those_of_torch(dtype, num_rows, blocks, monkeypatch):
    from unimm.nn import few_rows

    monkeypatch.setitem(few_rows.PRODUCTS, "down", blocks)
    generator = torch.Generator().manual_seed(num_rows)
    x, hidden, weight = (
        torch.randn(shape, generator=generator).to(DEVICE, dtype)
        for shape in ((num_rows, 24), (num_rows, 2736), (24, 2736))
    )
    found = few_rows.add_product("down", x, hidden, weight).float()
    expected = x.double() + hidden.double() @ weight.double().t()
    error = float((found - expected).norm() / expected.norm())
    assert error < (1e-6 if dtype == torch.float32 else 4e-3), error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 64), (2, 1, 1040), (4, 48)])
def test_matrices_multiply_a_few_rows_as_in_torch(dtype, shape):
    from unimm.nn.few_rows import multiply

    generator = torch.Generator().manual_seed(len(shape))
    x = torch.randn(shape, generator=generator).to(DEVICE, dtype)
    weight = torch.randn(54, shape[-1], generator=generator).to(DEVICE, dtype)
    found, expected = multiply(x, weight), x.double() @ weight.double().t()
    assert found.shape == expected.shape and found.dtype == dtype
    error = float((found - expected).norm() / expected.norm())
    assert error < (1e-6 if dtype == torch.float32 else 4e-3), error


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("num_documents", "num_branches", "changes"),
    [(1, 1, {}), (1, 2, {}), (2, 2, {"dim": 80, "head_dim": 32}), (3, 2, {"use_qk_norm": False})],
)
def test_blocks_of_a_chain_are_steps_of_the_layers(dtype, num_documents, num_branches, changes):
    from unimm.nn.fused_chain import run_block

    backbone, num_rows = backbone_of(dtype, **changes), num_documents * num_branches
    plain, fused = (cache_of(backbone, num_rows + 1, dtype) for _ in range(2))
    rows = list(range(1, num_rows + 1))
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(20, backbone.config.dim, generator=generator).to(DEVICE, dtype)
    positions = torch.randint(0, 900, (num_rows, 3, 3), generator=generator).to(DEVICE)
    starts = [5, 0, 127, 30, 2, 1][:num_rows]
    at = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    last = torch.zeros(num_rows, backbone.config.dim, device=DEVICE, dtype=dtype)
    lengths = torch.tensor(starts, device=DEVICE)
    for cache in (plain, fused):
        cache.advance(rows, starts)
    with torch.no_grad():
        for block in range(3):
            drawn = torch.randint(0, 20, (num_documents,), generator=generator).to(DEVICE)
            x = table[drawn].repeat(num_branches, 1)[:, None]
            view = plain.view(rows, 1, is_causal=True)
            expected = backbone(x, positions[:, block : block + 1], cache=view)[:, 0].float()
            view = fused.view(rows, 1, is_causal=True)
            view.lengths = lengths
            run_block(
                backbone, drawn, table, last=last, at=at, positions=positions, view=view
            )  # fmt: skip
            for cache in (plain, fused):
                cache.advance(rows, [1] * num_rows)
            assert at.item() == block + 1 and lengths.tolist() == plain.lengths[1:]
            error = float((expected - last.float()).norm() / expected.norm())
            assert error < (1e-4 if dtype == torch.float32 else 3e-2), (block, error)


@pytest.mark.parametrize("blocks", [(1, 1), (4, 2), (8, 8)])
@pytest.mark.parametrize("num_rows", [2, 5])
def test_attention_does_not_depend_on_its_blocks(num_rows, blocks, monkeypatch):
    from unimm.nn import fused_layers

    monkeypatch.setitem(fused_layers.ATTENTION, "few" if num_rows <= 4 else "many", blocks)
    test_fused_steps_are_those_of_the_layers(torch.float32, num_rows, 1, True, {"depth": 1})
