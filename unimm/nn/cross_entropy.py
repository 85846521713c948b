"""Cross-entropy over a large vocabulary, of which little is held in float32 at once.

An 8B model's vocabulary takes 0.6 MB a position in float32, which the loss would keep three times.
The head is asked once, whatever the number of positions: under ZeRO 3 every call of it is one of
all ranks.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

MOST_LOGITS = 2**29
"""Made float32 at once, 2 GiB; if there are more it is done in stretches, and again backward."""


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """How unexpected each token is.

    Args:
        logits: ``(N, V)`` in any precision.
        labels: ``(N,)`` int64.

    Returns:
        ``(N,)`` float32, nats.
    """
    most = max(1, MOST_LOGITS // logits.shape[-1])
    if len(logits) <= most:
        return _losses(logits, labels)
    parts = zip(logits.split(most), labels.split(most), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_losses(*part) for part in parts])
    found = [
        checkpoint(_losses, *part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(found)  # pyright: ignore[reportArgumentType]


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.float(), labels, reduction="none")
