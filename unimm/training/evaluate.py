"""Losses on held-out documents, and on the labels that only name binding explains."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unimm.distributed import all_reduce_sum
from unimm.document import Batch
from unimm.training.engine import Engine

COPIED = "copied_names"
"""Mean text loss of the tokens of names that an earlier part of the document mentions."""

EvaluationSets = Mapping[str, Sequence[tuple[Batch, Tensor]]]


@torch.no_grad()
def evaluate(engine: Engine, sets: EvaluationSets, device: torch.device) -> dict[str, float]:
    """Score the present weights; every rank must call it.

    Args:
        engine: holds the model.
        sets: name -> batches with marks over their text labels.
        device: of the run.

    Returns:
        ``set/head`` -> mean loss in nats; heads that a set never asks are left out.
    """
    model = engine.model
    heads = ("text", *model.config.heads)
    figures: dict[str, float] = {}
    for name, batches in sets.items():
        totals = torch.zeros(len(heads) + 1, 2, device=device)
        # As many forwards on every rank: ZeRO 3 gathers weights in each of them.
        for turn in range(-(-len(batches) // engine.num_shares)):
            at = turn * engine.num_shares + engine.share
            batch, marks = batches[at % len(batches)]
            losses = engine.head_losses(batch.to(device))
            if at >= len(batches):
                continue
            for k, head in enumerate(heads):
                number = len(batch.slots[head].index)
                totals[k] += torch.stack([losses[head].sum(), torch.tensor(number, device=device)])
            marked = losses["text"][marks.to(device)]
            totals[-1] += torch.stack([marked.sum(), torch.tensor(len(marked), device=device)])
        values = all_reduce_sum(totals).tolist()
        for head, (loss, number) in zip((*heads, COPIED), values, strict=True):
            if number:
                figures[f"{name}/{head}"] = loss / number
    return figures
