"""Losses and gradients by our kernels against PyTorch's; TRITON_INTERPRET=1 runs them on a CPU."""

import pytest
import torch
from kernel_device import DEVICE, IS_INTERPRETED, KERNEL_MARKS
from torch import Tensor
from torch.nn import functional

from unimm.nn.cross_entropy import _kernel_losses, losses_by_kernel, token_losses

pytestmark = KERNEL_MARKS
BF16, SINGLE = torch.bfloat16, torch.float32
STEP = {SINGLE: 1e-5, BF16: 2**-7, torch.float16: 2**-10}
"""From a number to the next of its format, at most."""
SIZES = [1, 24, 4099, 16384]
LARGE = pytest.param(
    151_936, marks=pytest.mark.skipif(IS_INTERPRETED, reason="too large for the interpreter")
)


def problem(rows: int, size: int, dtype: torch.dtype, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits and labels, the first and last of which are the vocabulary's ends."""
    torch.manual_seed(size)
    logits = (scale * torch.randn(rows, size)).to(DEVICE, dtype).requires_grad_()
    labels = torch.randint(size, (rows,))
    labels[:1], labels[1:][-1:] = 0, size - 1
    return logits, labels.to(DEVICE)


def expected_of(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")


@pytest.mark.parametrize("size", [*SIZES, LARGE])
@pytest.mark.parametrize("dtype", [SINGLE, BF16, torch.float16])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_losses_and_gradients_are_pytorchs(size, dtype, rows):
    logits, labels = problem(rows, size, dtype)
    weights = torch.rand(rows, device=DEVICE)
    found, expected = losses_by_kernel(logits, labels), expected_of(logits, labels)
    assert found.dtype == SINGLE
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), logits)[0] for x in (found, expected))
    assert ours.dtype == dtype and ours.shape == logits.shape
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=STEP[dtype])


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_very_large_logits_neither_overflow_nor_vanish(scale):
    logits, labels = problem(4, 4099, SINGLE, scale)
    found, expected = losses_by_kernel(logits, labels), expected_of(logits, labels)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    ours, theirs = (torch.autograd.grad(x.sum(), logits)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_impossible_tokens_cost_infinity_and_change_nothing_else():
    logits, labels = problem(3, 4099, SINGLE)
    closed = torch.full((3, 4096), float("-inf"), device=DEVICE)  # a whole block of them
    found = losses_by_kernel(torch.cat([closed, logits], dim=1), labels + 4096)
    torch.testing.assert_close(found, expected_of(logits, labels), atol=1e-5, rtol=1e-5)


def test_logits_that_lie_apart():
    wide, labels = problem(6, 50, BF16)
    for logits in (wide[:, :33], wide.t()[:, :3], wide[::2, ::2]):
        given = labels[: len(logits)] % logits.shape[1]
        given = given.new_zeros(len(logits)) if len(given) < len(logits) else given
        ours, theirs = losses_by_kernel(logits, given), expected_of(logits, given)
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
        left, right = (torch.autograd.grad(x.sum(), wide)[0] for x in (ours, theirs))
        torch.testing.assert_close(left, right, atol=1e-6, rtol=STEP[BF16])


def test_a_label_outside_of_the_vocabulary_is_not_silent():
    logits, labels = problem(3, 24, SINGLE)
    labels[0], labels[2] = -1, 24
    assert losses_by_kernel(logits, labels).isnan().tolist() == [True, False, True]


def test_it_is_an_operator_as_pytorch_wants_it():
    logits, labels = problem(3, 24, SINGLE)
    torch.library.opcheck(_kernel_losses, (logits, labels))
    with torch.inference_mode():
        found = losses_by_kernel(logits.detach(), labels)
    torch.testing.assert_close(found, expected_of(logits, labels).detach(), atol=1e-5, rtol=1e-5)


def test_compiled_it_gives_the_same():
    logits, labels = problem(3, 24, BF16)
    function = token_losses if DEVICE == "cuda" else losses_by_kernel
    backend = "inductor" if DEVICE == "cuda" else "aot_eager"
    compiled = torch.compile(
        lambda x, y: function(2 * x, y).mean(), backend=backend, fullgraph=True
    )
    found, expected = compiled(logits, labels), expected_of(2 * logits, labels).mean()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.autograd.grad(x, logits)[0] for x in (found, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=STEP[BF16])


@pytest.mark.skipif(IS_INTERPRETED, reason="counts a GPU's memory")
def test_nothing_as_large_as_the_logits_is_held_but_their_gradient():
    logits, labels = problem(1024, 16384, BF16)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    token_losses(logits, labels).sum().backward()
    held = torch.cuda.max_memory_allocated() - before
    assert held < 1.1 * logits.nbytes
