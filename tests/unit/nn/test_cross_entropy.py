import pytest
import torch
from torch.nn import functional

from unimm.nn import cross_entropy
from unimm.nn.cross_entropy import token_losses


@pytest.mark.parametrize("most", [2**29, 50, 20, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stretches_give_the_losses_and_gradients_of_the_whole(most, dtype, monkeypatch):
    monkeypatch.setattr(cross_entropy, "MOST_LOGITS", most)
    torch.manual_seed(0)
    logits = torch.randn(7, 20).to(dtype).requires_grad_()
    labels, weights = torch.randint(20, (7,)), torch.rand(7)
    found = token_losses(logits, labels)
    expected = functional.cross_entropy(logits.float(), labels, reduction="none")
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    ours, theirs = (torch.autograd.grad((x * weights).sum(), logits)[0] for x in (found, expected))
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        torch.testing.assert_close(token_losses(logits, labels), expected)
    assert token_losses(logits[:0], labels[:0]).shape == (0,)


def test_of_many_logits_no_float32_copy_is_kept(monkeypatch):
    kept = []

    def pack(x):
        kept.append(x.dtype)
        return x

    logits = torch.randn(32, 100, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.randint(100, (32,))
    for most, is_copied in ((10_000, True), (800, False)):
        monkeypatch.setattr(cross_entropy, "MOST_LOGITS", most)
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            token_losses(logits, labels)
        assert (torch.float32 in kept) == is_copied
