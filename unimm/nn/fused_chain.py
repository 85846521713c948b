"""A block of a chain on a GPU: the trunk's layers, and one kernel before and one behind them.

Legend: ``B`` documents, ``R`` rows, some for every document, ``n`` blocks, ``D`` width.
"""

from typing import Any

import torch
from torch import Tensor

from unimm.nn.few_rows import overlap
from unimm.nn.fused_layers import frequencies_of, run_layers
from unimm.nn.kernel_blocks import next_power
from unimm.nn.kv_cache import CacheView
from unimm.nn.transformer import Backbone


def run_block(
    backbone: Backbone,
    drawn: Tensor,
    table: Tensor,
    *,
    last: Tensor,
    at: Tensor,
    positions: Tensor,
    view: CacheView,
) -> None:
    """Run the trunk on what was drawn, and move on.

    Args:
        backbone: for which ``can_fuse`` is true.
        drawn: rows of the table, ``(B,)`` int64.
        table: of embeddings, ``(V, D)``.
        last: gets the new hidden state ``(R, D)``, normalised.
        at: which block this is, ``(1,)`` int64; it is moved on, as the view's lengths are.
        positions: of all blocks, ``(R, n, 3)`` int64.
        view: of neighbouring rows, one new position each.
    """
    from unimm.nn import chain_kernels  # a CPU has no Triton

    kernels: Any = chain_kernels
    config, (num_rows, width) = backbone.config, last.shape
    half, block = config.head_width // 2, next_power(width)
    stream = torch.empty_like(last)
    angles = torch.empty(2, num_rows, half, device=last.device)
    kernels.enter_kernel[(num_rows,)](
        drawn,
        table,
        positions.contiguous(),
        at,
        frequencies_of(config.head_width, config.rope_base, last.device),
        stream,
        *angles,
        len(drawn),
        positions.shape[1],
        width=width,
        half=half,
        block=block,
        block_half=next_power(half),
        **overlap(last),
    )
    stream = run_layers(backbone, stream, (angles[0], angles[1]), view)
    kernels.leave_kernel[(num_rows,)](
        stream,
        backbone.norm.weight,
        last,
        at,
        view.lengths,
        backbone.norm.eps,
        width=width,
        block=block,
        **overlap(last),
    )
