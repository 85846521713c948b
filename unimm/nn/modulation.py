"""A denoiser's residual stream, and how a condition shifts, scales and gates what blocks add to it.

Legend: ``B`` pictures, ``n`` patches, ``D`` width.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.nn.adjacent import products
from unimm.nn.embeddings import ZeroLinear
from unimm.nn.fused_modulation import add_fused, add_modulate_fused, can_fuse

EPS = 1e-6
"""Of a denoiser's norms."""

MOST_BYTES = 256 * 2**20
"""Of modulations that one product gives, several blocks' at once.

Many rows fill a GPU by one block's and would need gigabytes for all: 28 blocks of DiT-XL/2 at 4,096
rows 1.6. For a moment the group before is there, too, whose last gate is still to be used.
"""


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise without weights, then shift and scale: the "adaLN" of DiT."""
    if can_fuse(x, shift, scale):
        return add_modulate_fused(x, None, None, shift, scale, eps=EPS)[1]
    return functional.layer_norm(x, x.shape[-1:], eps=EPS) * (1 + scale) + shift


def add(x: Tensor, branch: Tensor, gate: Tensor | None) -> Tensor:
    """Add what a branch gave to the stream, gated if there is a gate."""
    if can_fuse(x, branch, gate):
        return add_fused(x, branch, gate)
    return x + (branch if gate is None else gate * branch)


class Residual:
    """A residual stream that adds a branch only when it is read: one pass adds and normalises.

    Args:
        x: ``(B, n, D)``.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._branch: Tensor | None = None  # still to be added
        self._gate: Tensor | None = None

    def add(self, branch: Tensor, gate: Tensor | None = None) -> None:
        """Add a branch ``(B, n, D)``, times a gate ``(B, 1 or n, D)`` if there is one."""
        self._x = self.sum()
        self._branch, self._gate = branch, gate

    def sum(self) -> Tensor:
        """The stream with all branches, ``(B, n, D)``."""
        if self._branch is not None:
            self._x = add(self._x, self._branch, self._gate)
            self._branch = self._gate = None
        return self._x

    def modulate(self, shift: Tensor, scale: Tensor) -> Tensor:
        """The sum normalised without weights, shifted and scaled, ``(B, 1 or n, D)`` each."""
        branch, gate = self._branch, self._gate
        if branch is None or not can_fuse(self._x, branch, gate, shift, scale):
            return modulate(self.sum(), shift, scale)
        self._branch = self._gate = None
        self._x, seen = add_modulate_fused(self._x, branch, gate, shift, scale, eps=EPS)
        return seen

    def keep(self, num_places: int) -> None:
        """Drop all places but the first."""
        self._x = self._x[:, :num_places]
        if self._branch is not None:
            self._branch = self._branch[:, :num_places]
        if self._gate is not None:
            self._gate = self._gate[:, :num_places]


class Modulation(nn.Module):
    """Shifts, scales and gates from a condition behind its SiLU; all zero at first."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.linear = ZeroLinear(dim, count * dim)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """``(B, 1 or n, D)`` to ``count`` tensors of that shape."""
        return self.linear(condition).chunk(self.count, dim=-1)


class TableModulation(nn.Module):
    """adaLN-single (PixArt-alpha): a learned table added to what one shared layer gives.

    The table starts as noise, as published: such blocks are no identities.
    """

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.count = count
        self.table = nn.Parameter(torch.randn(count * dim) / math.sqrt(dim))

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """``(B, 1, count D)`` to ``count`` tensors ``(B, 1, D)``."""
        return (self.table + condition).chunk(self.count, dim=-1)


Modulations = Iterator[tuple[Tensor, ...]]
"""What modules that modulate make of a condition, in the order in which blocks ask."""


def joined_modulations(modules: Sequence[Modulation], condition: Tensor) -> Modulations:
    """What each module makes of one condition, in turn; inference only.

    Modules whose weights lie together are one product, up to ``MOST_BYTES`` of its result, which is
    computed when the first of them is asked for.

    Args:
        modules: in the order in which they are needed.
        condition: ``(B, 1 or n, D)`` for all.
    """
    assert not torch.is_grad_enabled(), "no gradient reaches weights that lie together"
    for group in _groups(modules, condition.nbytes // condition.shape[-1]):
        linears = [module.linear for module in group]
        found = products(condition, [x.weight for x in linears], [x.bias for x in linears])
        for module, part in zip(group, found, strict=True):
            yield part.chunk(module.count, dim=-1)


def _groups(modules: Sequence[Modulation], bytes_each: int) -> Iterator[list[Modulation]]:
    """Cut modules into groups that give ``MOST_BYTES``, or alone more; ``bytes_each`` a number."""
    group, size = [], 0
    for module in modules:
        more = bytes_each * module.linear.out_features
        if group and size + more > MOST_BYTES:
            yield group
            group, size = [], 0
        group.append(module)
        size += more
    if group:
        yield group
