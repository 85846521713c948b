"""The rows of a batch in the cache, and the trunk's steps on them: prefill, text, blocks.

Rows: the documents, then, once for each branch of guidance, the same documents with something
hidden: equally long, at the same positions. Legend: ``B`` documents, ``G`` guidance branches,
``R`` rows of a step, ``n`` positions of a step, ``D`` width.
"""

from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor

from unimm.document import Layout, attention_rule, pack
from unimm.generation.graphs import can_keep, keep_workspace, take_workspace
from unimm.model import UniMM
from unimm.nn.attention import Visibility
from unimm.objectives.base import Chain


class CachedRows:
    """Runs the trunk against the cache; what the positions mean is the caller's affair.

    Args:
        model: in evaluation mode.
        num_documents: ``B``.
        num_branches: ``G``, the documents themselves included.
        capacity: positions that a row may come to hold.
        on_step: called after every step of the trunk with the positions it ran for one document.
    """

    def __init__(
        self,
        model: UniMM,
        *,
        num_documents: int,
        num_branches: int,
        capacity: int,
        on_step: Callable[[int], None] | None,
    ) -> None:
        self.model, self.special = model, model.special
        self.num_documents, self.num_branches = num_documents, num_branches
        self.device = model.text_embedding.weight.device
        self._on_step = on_step
        self._workspace = take_workspace(
            model, num_rows=num_documents * num_branches, capacity=capacity
        )
        self.cache = self._workspace.cache
        self._is_kept: bool | None = None

    def of(
        self, branches: Sequence[int] | None = None, documents: Sequence[int] | None = None
    ) -> list[int]:
        """Rows of branches and documents, by default of all."""
        branches = range(self.num_branches) if branches is None else branches
        documents = range(self.num_documents) if documents is None else documents
        return [b * self.num_documents + d for b in branches for d in documents]

    def prefill(self, layouts: Sequence[Layout], *, visible: Tensor | None = None) -> Tensor:
        """Run the training forward over what stands already, filling the empty cache.

        Args:
            layouts: of all rows.
            visible: what may be seen of what the rule shows, ``(R, L, L)`` bool; all by default.

        Returns:
            Hidden state of each document's last position, ``(B, D)``.
        """
        lengths = [len(layout) for layout in layouts]
        batch = pack(
            [[layout] for layout in layouts],
            row_length=max(lengths),
            heads=self.model.config.heads,
            pad_id=self.special.pad,
        ).to(self.device)
        rows = self.of()
        x = self.model.embed_inputs(batch.input_ids, batch.code_ids)
        view = self.cache.view(rows, max(lengths), is_causal=True)
        rule = attention_rule(batch)
        if visible is not None:
            rule = rule & visible.to(self.device)
        seen = Visibility(dense=rule[:, None])
        hidden = self.model.backbone(x, batch.position_ids, seen, view)
        self.cache.advance(rows, lengths)
        if self._on_step:
            self._on_step(max(lengths))
        at = torch.tensor(lengths[: self.num_documents], device=self.device) - 1
        return hidden[torch.arange(self.num_documents, device=self.device), at]

    def run(self, rows: list[int], x: Tensor, positions: Tensor, *, is_causal: bool) -> Tensor:
        """Run the trunk on new positions; ``cache.advance`` says afterwards how many stay.

        Args:
            rows: which.
            x: ``(R, n, D)``.
            positions: ``(R, n, 3)``.
            is_causal: whether the new positions see each other causally or all.

        Returns:
            ``(R, n, D)``.
        """
        hidden = self._workspace.graphs.run(rows, x, positions, is_causal=is_causal)
        if self._on_step:
            self._on_step(x.shape[1])
        return hidden

    def run_chain(self, rows: list[int], chain: Chain, positions: Tensor) -> Tensor:
        """Run a chain's blocks at ``positions (R, n, 3)``, all of which stay.

        Returns:
            The last hidden state ``(R, 1, D)``.
        """

        def count() -> None:
            if self._on_step:
                self._on_step(1)

        return self._workspace.graphs.run_chain(rows, chain, positions, on_block=count)

    def append_ids(
        self,
        rows: list[int],
        ids: Sequence[Sequence[int]],
        starts: Sequence[int],
        last: Tensor | None = None,
    ) -> Tensor:
        """Append text ids of any lengths to rows: causal, padded to the right.

        Padding is written behind what a row keeps, where nothing sees it.

        Args:
            rows: which.
            ids: new ones of each row.
            starts: position of each row's first new id.
            last: hidden states before, ``(R, D)``; needed where a row may have no new id.

        Returns:
            Hidden state of each row's last new position ``(R, D)``, or ``last`` where none is new.
        """
        counts = [len(new) for new in ids]
        longest = max(counts)
        if longest == 0:
            assert last is not None
            return last
        padded = [[*new, *[self.special.pad] * (longest - len(new))] for new in ids]
        steps = [range(start, start + longest) for start in starts]
        # Where each row's last state lies, among the new ones or, behind all of them, in ``last``.
        size = len(rows) * longest
        at = [row * longest + n - 1 if n else size + row for row, n in enumerate(counts)]
        told = torch.tensor([*chain(*padded), *chain(*steps), *at])  # one copy, not three
        told = told.to(self.device, non_blocking=True)
        hidden = self.run(
            rows,
            self.model.text_embedding(told[:size].view(-1, longest)),
            told[size : 2 * size].view(-1, longest, 1).expand(-1, -1, 3),
            is_causal=True,
        )
        self.cache.advance(rows, counts)
        if longest == 1 and min(counts) == 1:
            return hidden[:, 0]
        states = hidden.flatten(0, 1)
        states = states if last is None else torch.cat([states, last])
        return states.index_select(0, told[2 * size :])

    def keep(self, documents: Sequence[int]) -> None:
        """Go on with these documents only, renumbered in this order."""
        self.cache.select(self.of(documents=documents))
        self.num_documents = len(documents)

    def settle(self) -> None:
        """Find out what ``close`` will do, while the device is busy and the host is not."""
        if self._is_kept is None:
            self._is_kept = can_keep(self._workspace)

    def close(self) -> None:
        """Leave the cache and what was recorded to the model's next rows; these are done."""
        self.settle()
        if self._is_kept:
            keep_workspace(self.model, self._workspace)
