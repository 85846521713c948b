"""One row over several ranks (DeepSpeed-Ulysses, Jacobs et al., 2023).

Each rank of a group runs the trunk's layers on its stretch of the row. Attention needs the whole
row, but heads are independent: before it, the ranks trade positions for heads, and after it back.

Legend: ``g`` ranks of the group, ``n = L / g`` positions of a stretch.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from unimm.distributed import rank, world_size


class SequenceGroup:
    """The ranks that share this rank's rows: consecutive ones, so that they are near each other.

    Every rank of the run must build one, with the same size.

    Args:
        size: ranks that share a row, ``g``.

    Attributes:
        size: ``g``.
        place: of this rank among them, 0 to ``g - 1``.

    Raises:
        ValueError: the run's ranks cannot be grouped so.
    """

    def __init__(self, size: int) -> None:
        if world_size() % size:
            raise ValueError(
                f"{world_size()} processes cannot be put in groups of sequence_ranks {size}"
            )
        self.size, self.place = size, rank() % size
        groups = [
            dist.new_group(list(range(first, first + size)))
            for first in range(0, world_size(), size)
        ]
        self._group: Any = groups[rank() // size]
        # Compiled layers leave the graph for a collective.
        self._trade: Any = torch.compiler.disable(Trade.apply)

    def split(self, x: Tensor) -> Tensor:
        """This rank's stretch of whole rows: ``(B, L, ...)`` to ``(B, n, ...)``.

        Raises:
            ValueError: the rows cannot be cut evenly.
        """
        length = x.shape[1]
        if length % self.size:
            raise ValueError(
                f"rows of {length} positions cannot be cut among {self.size} ranks: make "
                "data.row_length a multiple of engine.sequence_ranks"
            )
        share = length // self.size
        return x[:, self.place * share : (self.place + 1) * share]

    def gather(self, x: Tensor) -> Tensor:
        """Whole rows from all stretches: ``(B, n, D)`` to ``(B, L, D)`` on every rank.

        The backward sums the ranks' gradients of each stretch.
        """
        return _Gather.apply(x, self)  # pyright: ignore[reportReturnType]

    def to_heads(self, x: Tensor) -> Tensor:
        """All positions of some heads: ``(B, H, n, head_dim)`` to ``(B, H / g, L, head_dim)``."""
        return self._trade(x, self, 1, 2)

    def to_positions(self, x: Tensor) -> Tensor:
        """All heads of a stretch: the inverse of ``to_heads``."""
        return self._trade(x, self, 2, 1)

    def trade(self, x: Tensor, give: int, take: int) -> Tensor:
        """Send the parts of axis ``give`` to their ranks, and join what comes along ``take``."""
        sent = [part.contiguous() for part in x.chunk(self.size, dim=give)]
        received = [torch.empty_like(part) for part in sent]
        dist.all_to_all(received, sent, group=self._group)
        return torch.cat(received, dim=take)

    def collect(self, x: Tensor) -> Tensor:
        """Join the ranks' stretches along axis 1, without gradient."""
        parts = [torch.empty_like(x) for _ in range(self.size)]
        dist.all_gather(parts, x.contiguous(), group=self._group)
        return torch.cat(parts, dim=1)


class Trade(torch.autograd.Function):
    """An all-to-all, whose backward is the opposite one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup, give: int, take: int) -> Tensor:
        """As ``SequenceGroup.trade``."""
        ctx.group, ctx.give, ctx.take = group, give, take
        return group.trade(x, give, take)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """The axes change places."""
        return ctx.group.trade(gradients[0], ctx.take, ctx.give), None, None, None


class _Gather(torch.autograd.Function):
    """An all-gather along axis 1, whose backward sums what every rank makes of each stretch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: SequenceGroup) -> Tensor:
        ctx.group = group
        return group.collect(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        group = ctx.group
        traded = group.trade(gradients[0], 1, 0)  # (g B, n, D): one gradient from each rank
        return traded.unflatten(0, (group.size, -1)).sum(0), None
