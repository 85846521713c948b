"""How evenly a codebook is used: a pure function on counts.

Shape: K codebook size.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class CodeUsage:
    """How a codebook is used over many pictures.

    Attributes:
        num_used: codes that occur at all.
        num_dead: codes that never occur.
        perplexity: of the codes' frequencies; the codebook size if all are equally frequent.
    """

    num_used: int
    num_dead: int
    perplexity: float


def code_usage(counts: Tensor) -> CodeUsage:
    """Sum up how often each code occurred, ``counts (K,)``."""
    used = int((counts > 0).sum())
    share = counts.double() / counts.sum().clamp(min=1)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    return CodeUsage(num_used=used, num_dead=counts.numel() - used, perplexity=float(entropy.exp()))
