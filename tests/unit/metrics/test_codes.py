import pytest
import torch

from unimm.metrics.codes import code_usage


def test_usage_counts_and_perplexity() -> None:
    usage = code_usage(torch.tensor([5, 5, 5, 5, 0, 0]))
    assert (usage.num_used, usage.num_dead) == (4, 2)
    assert usage.perplexity == pytest.approx(4.0)
