"""Pictures and texts as the trunk reads them, for features and for likelihoods.

Legend: ``B`` pictures, one a row, ``L`` row length, ``N`` positions that an objective reads, ``D``
width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from unimm.document import Batch, Document, Dropped, ImageTokens, Part, layout_document, pack
from unimm.model import UniMM
from unimm.nn.attention import batch_visibility
from unimm.pipeline import Pipeline

NULL_LENGTH = 8  # tokens of the empty condition: about a short caption's, all of them <null>


def lay_out(pipeline: Pipeline, texts: Sequence[str], pictures: ImageTokens) -> Batch:
    """One row a picture to be drawn after its text, as in training.

    Args:
        pipeline: the model.
        texts: B captions; an empty one becomes ``<null>`` tokens, what guidance contrasts with.
        pictures: B of them, stacked.
    """
    special = pipeline.text_tokenizer.special_ids
    config = pipeline.drawing
    encoded = pipeline.text_tokenizer.encode_batch([text or "x" for text in texts])
    rows = []
    for i, text in enumerate(texts):
        ids = encoded[i] if text else [special.pad] * NULL_LENGTH
        picture = pictures[i].map(Tensor.cpu)
        document = Document(
            parts=(Part(text_ids=torch.tensor(ids)), Part(tokens=picture)), is_open=True, index=i
        )
        dropped = None if text else Dropped(parts=frozenset({0}))
        rows.append([layout_document(document, config, special, dropped=dropped)])
    return _pack(pipeline, rows)


def lay_out_given(pipeline: Pipeline, pictures: ImageTokens, text: str = "") -> Batch:
    """One row a given picture, after a text or with none."""
    special = pipeline.text_tokenizer.special_ids
    config = pipeline.drawing
    before = (Part(text_ids=torch.tensor(pipeline.text_tokenizer.encode(text))),) if text else ()
    assert pictures.codes is not None
    rows = [
        [
            layout_document(
                Document(
                    parts=(*before, Part(tokens=pictures[i].map(Tensor.cpu), is_drawn=False)),
                    is_open=True,
                    index=i,
                ),
                config,
                special,
            )
        ]
        for i in range(len(pictures.codes))
    ]
    return _pack(pipeline, rows)


def run_rows(pipeline: Pipeline, batch: Batch, draw: Any = None) -> Tensor:
    """Run the trunk over rows whose randomness is settled.

    Args:
        pipeline: the model.
        batch: of ``lay_out``.
        draw: what the objective fills its positions from; None where it fills none.

    Returns:
        ``(B, L, D)``.
    """
    model, name = pipeline.model, pipeline.drawing.name
    x = model.embed_inputs(batch.input_ids, batch.code_ids)  # (B, L, D)
    objective = model.objective(name)
    if draw is not None and objective.fills_slots:
        filled = objective.embed(draw).to(x.dtype)
        flat = x.reshape(-1, x.shape[-1]).index_copy(0, batch.slots[name].index, filled)
        x = flat.view(x.shape)
    mask = batch_visibility(batch, "dense", dtype=x.dtype)
    return model.backbone(x, batch.position_ids, mask)


@contextmanager
def outputs_of(modules: Sequence[nn.Module], wanted: Sequence[int]) -> Iterator[dict[int, Any]]:
    """Record what some of ``modules`` give while the block runs; number -> output."""
    found: dict[int, Any] = {}

    def keep(number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[number] = output

        return hook

    handles = [modules[i].register_forward_hook(keep(i)) for i in set(wanted)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _pack(pipeline: Pipeline, rows: list[list[Any]]) -> Batch:
    model: UniMM = pipeline.model
    length = max(len(row[0]) for row in rows)
    batch = pack(rows, row_length=length, heads=model.config.heads)
    return batch.to(pipeline.device)
