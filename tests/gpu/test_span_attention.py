"""Our attention kernels against the dense rule, results and gradients.

TRITON_INTERPRET=1 runs them on a CPU where Triton is installed (3.6 with NumPy before 2.4).
"""

from dataclasses import replace

import pytest
import torch
from helpers import packed, random_story, tiny_model, tiny_objective
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from random_rows import random_rows
from torch import Tensor

from unimm.document import attention_rule, visible_spans
from unimm.nn import span_attention as own
from unimm.nn.attention import Visibility, attend, batch_visibility
from unimm.nn.span_tiles import Tile

pytestmark = KERNEL_MARKS
# Against float32; half precision rounds weights and gradients of scores.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
HALF = [
    torch.float16,
    pytest.param(
        torch.bfloat16,
        marks=pytest.mark.skipif(
            IS_INTERPRETED, reason="interpreted products take bfloat16's bits for whole numbers"
        ),
    ),
]
SMALL = Tile(queries=32, keys=16)


def inputs_of(num_rows: int, length: int, width: int, heads: tuple[int, int]) -> list[Tensor]:
    """Queries, keys, values and the result's gradient; their memory has different orders."""
    generator = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for number, count in enumerate((heads[0], heads[1], heads[1], heads[0])):
        x = torch.randn(num_rows, length, count, 2 * width, generator=generator)
        x = x[..., :width].transpose(1, 2)  # (B, H, n, d), parts of a wider product
        found.append(x.contiguous() if number == 1 else x)
    return [x.to(DEVICE) for x in found]


def run(inputs: list[Tensor], visibility: Visibility, dtype: torch.dtype) -> list[Tensor]:
    """The result and the gradients of queries, keys and values."""
    query, key, value, weight = (x.to(dtype) for x in inputs)
    leaves = [x.detach().requires_grad_() for x in (query, key, value)]
    out = attend(leaves[0], leaves[1], leaves[2], visibility)
    return [x.detach().float() for x in (out, *torch.autograd.grad(out, leaves, weight))]


def assert_close(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    for name, mine, reference in zip(
        ("out", "query", "key", "value"), found, expected, strict=True
    ):
        assert mine.shape == reference.shape and mine.isfinite().all(), name
        assert reference.std() > 0.1, name
        error = float((mine - reference).abs().max() / reference.abs().max())
        assert error < TOLERANCE[dtype], (name, error)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles that several of lie in a short row; each kernel has other ones."""
    tiles = own.Tiles(
        forward=SMALL,
        query_gradient=replace(SMALL, queries=16, keys=32),
        key_gradient=replace(SMALL, queries=16, keys=32),
    )
    for table in (own.TILES, own.CAUSAL_TILES):
        for width in table:
            monkeypatch.setitem(table, width, tiles)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize(
    ("length", "width", "heads", "options"),
    [
        (150, 64, (2, 2), {"is_causal": True}),
        (150, 64, (4, 2), {}),
        (161, 32, (3, 1), {"longest": (161, 50, 50)}),
        (96, 128, (1, 1), {"is_causal": True, "longest": (96, 20, 1)}),
        (96, 128, (2, 1), {}),
        (70, 24, (1, 1), {}),
        (7, 64, (1, 1), {"is_causal": True}),
    ],
)
def test_random_rows_equal_the_dense_rule(length, width, heads, options, dtype):
    batch = random_rows(length, **options).to(DEVICE)
    inputs = inputs_of(2, length, width, heads)
    expected = run(inputs, batch_visibility(batch, "dense"), torch.float32)
    for is_causal in {False, batch.is_causal}:
        given = replace(batch, is_causal=is_causal)
        visibility = batch_visibility(given, "spans", head_width=width)
        assert_close(run(inputs, visibility, dtype), expected, dtype)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", ["next_token", "next_scale", "masked", "diffusion", "transfusion"])
def test_every_objective_equals_the_dense_rule(name, dtype):
    """In the tiles that training takes, padding included."""
    stories = [[random_story(0), random_story(1)], [random_story(2, num_pages=4)]]
    batch = packed(tiny_objective(name), stories, row_length=237).to(DEVICE)
    inputs = inputs_of(2, 237, 64, (2, 1))
    expected = run(inputs, batch_visibility(batch, "dense"), torch.float32)
    found = run(inputs, batch_visibility(batch, "spans", head_width=64), dtype)
    assert_close(found, expected, dtype)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("is_causal", [True, False])
def test_a_loop_without_masks_changes_nothing(is_causal, is_split, monkeypatch):
    tiles = own.TILES[64]
    cut = {name: replace(tile, is_split=is_split) for name, tile in vars(tiles).items()}
    for table in (own.TILES, own.CAUSAL_TILES):
        monkeypatch.setitem(table, 64, own.Tiles(**cut))
    batch = random_rows(130, is_causal=is_causal, longest=(130, 60, 30)).to(DEVICE)
    inputs = inputs_of(2, 130, 64, (2, 1))
    expected = run(inputs, batch_visibility(batch, "dense"), torch.float32)
    found = run(inputs, batch_visibility(batch, "spans"), torch.float32)
    assert_close(found, expected, torch.float32)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("is_causal", [True, False])
def test_who_sees_nothing_gets_zeros(is_causal):
    batch = random_rows(100, num_rows=1, is_causal=is_causal).to(DEVICE)
    spans, from_here = visible_spans(batch), int((batch.document_ids[0] == 0).sum())
    places = torch.arange(100, device=DEVICE)

    def beyond(numbers: Tensor) -> Tensor:
        """All positions behind the first document see nothing and are seen by nobody."""
        return torch.where(places < from_here, numbers, 100).int()

    spans = replace(
        spans,
        document_start=beyond(spans.document_start),
        segment_start=beyond(spans.segment_start),
        block_end=beyond(spans.block_end),
    )
    inputs = inputs_of(1, 100, 64, (2, 2))
    alone = [x[:, :, :from_here] for x in inputs]
    rule = attention_rule(batch)[:, None, :from_here, :from_here]
    expected = run(alone, Visibility(dense=rule), torch.float32)
    # The causal kernel takes a query's own place for the end of its block.
    tiles = own.cut_spans(spans, head_width=64, is_causal=is_causal)
    found = run(inputs, Visibility(spans=tiles, kernel=own.span_attention), torch.float32)
    assert_close([x[:, :, :from_here] for x in found], expected, torch.float32)
    assert not any(x[:, :, from_here:].any() for x in found)


def test_results_repeat_to_the_bit():
    batch = random_rows(300, longest=(300, 100, 60)).to(DEVICE)
    inputs = inputs_of(2, 300, 64, (4, 2))
    visibility = batch_visibility(batch, "spans")
    first, second = (run(inputs, visibility, torch.float16) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["next_token", "masked"])
def test_compiled_layers_equal_eager_ones_with_the_dense_rule(name):
    stories = [[random_story(0), random_story(1)], [random_story(2, num_pages=3)]]
    batch = packed(tiny_objective(name), stories, row_length=250).to(DEVICE)
    model = tiny_model(name, dim=128, num_heads=4, num_kv_heads=2, ffn_dim=192).to(DEVICE)
    compiler = "aot_eager" if IS_INTERPRETED else "inductor"
    gradients = {}
    for backend in ("dense", "spans"):
        if backend == "spans":
            for layer in model.backbone.layers:
                layer.forward = torch.compile(
                    layer.forward, dynamic=False, fullgraph=True, backend=compiler
                )
        model.zero_grad()
        with torch.autocast(DEVICE, torch.bfloat16, enabled=not IS_INTERPRETED):
            total = model(batch, backend=backend).total
        total.backward()
        gradients[backend] = {
            name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None
        }
    assert gradients["spans"].keys() == gradients["dense"].keys()
    for name, expected in gradients["dense"].items():
        error = float((gradients["spans"][name] - expected).norm() / expected.norm())
        assert error < (1e-4 if IS_INTERPRETED else 0.05), (name, error)


@pytest.mark.parametrize("is_causal", [True, False])
def test_the_operator_keeps_what_the_compiler_asks_of_it(is_causal):
    """Sizes, strides and gradients as traced, nothing written that was not said."""
    batch = random_rows(70, is_causal=is_causal).to(DEVICE)
    tiles = batch_visibility(batch, "spans").spans
    query, key, value, _ = (x.requires_grad_() for x in inputs_of(2, 70, 32, (2, 1)))
    lists = (tiles.forward, tiles.query_gradient)
    rest = [x for pair in lists for x in (pair.ranges, pair.starts)]
    arguments = (query, key, value, tiles.document_starts, tiles.key_spans, *rest)
    torch.library.opcheck(
        torch.ops.unimm.span_attention.default,
        (*arguments, tiles.query_ranges, tiles.width),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )
