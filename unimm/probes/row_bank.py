"""Many pictures after many texts: the rows of all texts are laid out once, pictures put in later.

Legend: ``T`` texts, ``P`` pairs of a picture and a text, ``L`` row length, ``n`` positions that the
objective reads, ``D`` width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unimm.document import NO_CODE, ImageTokens, attention_rule
from unimm.nn.attention import Visibility
from unimm.pipeline import Pipeline
from unimm.probes.documents import lay_out


class RowBank:
    """Rows of texts, each followed by a place for a picture.

    Args:
        pipeline: the model.
        texts: T captions.
    """

    def __init__(self, pipeline: Pipeline, texts: Sequence[str]) -> None:
        self.pipeline = pipeline
        name = pipeline.drawing.name
        self.objective = pipeline.model.objective(name)
        blank = ImageTokens.cat([self.objective.zeros(pipeline.device)] * len(texts))
        batch = lay_out(pipeline, texts, blank)
        self.batch, self.length = batch, batch.input_ids.shape[1]
        self.mask = attention_rule(batch)  # (T, L, L)
        rows = torch.arange(len(texts), device=pipeline.device)[:, None]
        # Where in its row each position stands that the objective reads.
        self.slots = batch.slots[name].index.view(len(texts), -1) - rows * self.length  # (T, n)
        blocks = batch.block_ids[0, self.slots[0]]
        self.block_of_slot = (blocks[:, None] > blocks[None, :].unique()).sum(1)  # (n,) from 0

    @property
    def num_blocks(self) -> int:
        """Blocks that a picture is predicted in, one after the other; 1 if all at once."""
        return int(self.block_of_slot.max()) + 1

    def run(
        self, columns: Tensor, pictures: ImageTokens, draw: Any, *, num_slots: int | None = None
    ) -> Tensor:
        """Run the trunk over pairs.

        Args:
            columns: ``(P,)`` which text.
            pictures: P of them, stacked.
            draw: their randomness, settled.
            num_slots: how many of a picture's positions are wanted. Later ones are not run: they
                are seen by none of these.

        Returns:
            ``(P, n, D)``, zeros where not run.
        """
        model, batch = self.pipeline.model, self.batch
        slots = self.slots[columns]  # (P, n)
        until = self.until(num_slots)
        code_ids = batch.code_ids[columns]
        if bool((code_ids != NO_CODE).any()):
            assert pictures.codes is not None
            where = code_ids != NO_CODE
            code_ids = code_ids.masked_scatter(where, pictures.codes.flatten(1))
        x = model.embed_inputs(batch.input_ids[columns], code_ids)  # (P, L, D)
        if self.objective.fills_slots:
            filled = self.objective.embed(draw).to(x.dtype).view(*slots.shape, -1)
            x = x.scatter(1, slots[..., None].expand_as(filled), filled)
        mask = self.mask[columns][:, None, :until, :until]
        positions = batch.position_ids[columns][:, :until]
        hidden = model.backbone(x[:, :until], positions, Visibility(dense=mask))
        padded = hidden.new_zeros(*x.shape[:2], hidden.shape[-1])
        padded[:, :until] = hidden
        return padded.gather(1, slots[..., None].expand(-1, -1, hidden.shape[-1]))

    def until(self, num_slots: int | None) -> int:
        """How many positions of a row must be run for the first ``num_slots`` of the picture's."""
        if num_slots is None or num_slots >= self.slots.shape[1]:
            return self.length
        return int(self.slots[:, num_slots - 1].max()) + 1
