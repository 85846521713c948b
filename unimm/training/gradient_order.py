"""Hands the gradients of compiled blocks to ZeRO in one order, the same on all ranks.

A compiled block gives all its gradients at once, and autograd then takes them in an order that
depends on what else waits: on which heads a rank's pictures are for. ZeRO 1 and 2 fill a bucket in
the order of arrival and sum the buckets of all ranks, so that gradients of one parameter would be
added to those of another, silently.
"""

from collections.abc import Iterable
from typing import Any

from torch import nn


def keep_order(zero: Any, blocks: Iterable[nn.Module]) -> None:
    """Hold back a block's gradients until all are there, and pass them on in its own order.

    Args:
        zero: DeepSpeed's optimizer of ZeRO 1 or 2.
        blocks: what is compiled; each uses all its parameters.
    """
    process = zero.process_gradients
    members = [tuple(p for p in block.parameters() if p.requires_grad) for block in blocks]
    block_of = {id(p): number for number, block in enumerate(members) for p in block}
    waiting: dict[int, dict[int, int]] = {}  # block -> parameter -> its group

    def process_in_order(parameter: nn.Parameter, group: int) -> None:
        number = block_of.get(id(parameter))
        if number is None:
            process(parameter, group)
            return
        here = waiting.setdefault(number, {})
        here[id(parameter)] = group
        if len(here) == len(members[number]):
            for member in members[number]:
                process(member, waiting[number].pop(id(member)))

    zero.process_gradients = process_in_order
