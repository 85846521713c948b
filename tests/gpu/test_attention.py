"""All attention backends compute one rule, forward and backward."""

import pytest
import torch
from helpers import packed, random_story

from unimm.nn.attention import attend, batch_visibility
from unimm.objectives.next_token import NextTokenConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 2e-2}  # float32 products run as TF32 in flex


def run(batch, backend, dtype):
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randn(2, heads, 256, 64, generator=generator).to("cuda", dtype).requires_grad_()
        for heads in (8, 4, 4)
    ]
    query, key, value = inputs
    out = attend(query, key, value, batch_visibility(batch, backend, dtype=dtype))
    # Padding sees padding as it likes: only documents count.
    is_document = (batch.document_ids < 2)[:, None, :, None]
    weight = torch.randn(out.shape, generator=generator).to(out) * is_document
    (out * weight).sum().backward()
    gradients = [x.grad for x in inputs]
    return [(out * is_document).float(), *(g.float() for g in gradients if g is not None)]


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("flex", torch.float32),
        ("flex", torch.bfloat16),
        ("varlen", torch.bfloat16),
        ("spans", torch.bfloat16),
    ],
)
def test_backend_equals_dense(backend, dtype):
    rows = [[random_story(0), random_story(1)], [random_story(2, num_pages=3), random_story(3)]]
    batch = packed(NextTokenConfig(), rows, row_length=256).to("cuda")
    expected = run(batch, "dense", torch.float32)
    found = run(batch, backend, dtype)
    for mine, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, reference, atol=TOLERANCE[dtype], rtol=2e-2)
