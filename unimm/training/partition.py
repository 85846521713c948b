"""Which stretches of the float32 weights, AdamW's moments and the average this rank holds.

DeepSpeed cuts them anew for every ZeRO stage and number of ranks, always into contiguous stretches
of flattened parameters. Seen so, a checkpoint is a set of named stretches, from which a run with
another stage or another number of ranks reads those that it needs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from unimm.distributed import rank, world_size

MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A stretch of one flattened parameter.

    Attributes:
        name: of the parameter.
        start: first element of the stretch.
        length: elements of the stretch.
        owner: what the optimizer moves: a parameter, or a flat buffer of many; float32. For a
            frozen parameter, what this rank keeps of it.
        offset: of the stretch in the flattened owner.
        is_trained: whether the optimizer moves it.
        is_shared: whether every rank holds the same stretch.
    """

    name: str
    start: int
    length: int
    owner: Tensor
    offset: int
    is_trained: bool
    is_shared: bool

    def of(self, tensor: Tensor) -> Tensor:
        """The stretch ``(length,)`` of a tensor that is laid out like the owner."""
        return tensor.detach().view(-1)[self.offset : self.offset + self.length]

    @property
    def is_whole(self) -> bool:
        """Whether the stretch is all that its owner has."""
        return self.length == self.owner.numel()

    @property
    def weight(self) -> Tensor:
        """The stretch of the weights, ``(length,)``; writing changes them."""
        return self.of(self.owner)


class Partition:
    """This rank's stretches of a model that DeepSpeed has cut.

    Args:
        model: in the engine.
        optimizer: the AdamW that moves it.
        zero: DeepSpeed's optimizer around it.
        stage: of ZeRO.

    Attributes:
        pieces: in the order of the model's parameters; a parameter may have none here.
        average: moving average of each trained piece, float32, beside its weight.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, zero: Any, *, stage: int
    ) -> None:
        self._model, self._optimizer, self._zero, self._stage = model, optimizer, zero, stage
        self._device = next(model.parameters()).device
        self.pieces = [
            piece for name, p in model.named_parameters() if (piece := self._piece(name, p))
        ]
        self.trained = [piece for piece in self.pieces if piece.is_trained]
        self.average = [piece.weight.clone() for piece in self.trained]
        self._shaped = [
            average.view_as(piece.owner) if piece.is_whole else average
            for piece, average in zip(self.trained, self.average, strict=True)
        ]

    def _piece(self, name: str, parameter: Any) -> Piece | None:
        is_trained = parameter.requires_grad
        start, length, owner, offset, is_shared = 0, parameter.numel(), parameter, 0, True
        if self._stage == 3:
            share = parameter.partition_numel()
            start, is_shared = rank() * share, False
            length = min(share, parameter.ds_numel - start)  # the last ones are padded
            owner = parameter.ds_tensor
            if is_trained:
                group, offset, _ = self._zero.grad_position[self._zero.get_param_id(parameter)]
                owner = self._zero.fp32_partitioned_groups_flat[group]
        elif self._stage > 0 and is_trained:
            found, is_shared = parameter._hp_mapping, False
            if found is None:
                return None
            start, length = found.lp_fragment_address.start, found.lp_fragment_address.numel
            owner = self._zero.single_partition_of_fp32_groups[found.param_group_index]
            offset = found.hp_fragment_address.start
        if length <= 0:
            return None
        return Piece(
            name=name,
            start=start,
            length=length,
            owner=owner,
            offset=offset,
            is_trained=is_trained,
            is_shared=is_shared,
        )

    @torch.no_grad()
    def update_average(self, weight: float) -> None:
        """Move the average towards the weights by a share."""
        lerp: Any = torch._foreach_lerp_  # pyright: ignore[reportPrivateImportUsage]
        # An owner's memory may be another one than before: nothing of it is kept.
        weights = [piece.owner if piece.is_whole else piece.weight for piece in self.trained]
        lerp(self._shaped, weights, weight)

    @torch.no_grad()
    def exchange_average(self) -> None:
        """Let weights and average change places; every rank must call it. Twice changes nothing."""
        for piece, average in zip(self.trained, self.average, strict=True):
            weight = piece.weight.clone()
            piece.weight.copy_(average)
            average.copy_(weight)
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Carry changed float32 weights to where the forward reads; every rank must call it."""
        if self._stage in (1, 2):
            self._zero.update_lp_params()
        elif self._stage == 3:
            self._zero._partition_all_parameters()
            for group in range(len(self._zero.fp32_partitioned_groups_flat)):
                self._zero._reassign_or_swap_out_partitioned_parameters(group)
            kept = self._zero.persistent_parameters
            if kept:
                kept[0].all_gather(kept)

    def shapes(self) -> dict[str, torch.Size]:
        """Whole shape of every parameter, wherever its stretches are."""
        return {name: getattr(p, "ds_shape", p.shape) for name, p in self._model.named_parameters()}

    def kinds(self, name: str) -> tuple[str, ...]:
        """What a run must keep of a parameter, wherever its stretches are."""
        is_trained = self._model.get_parameter(name).requires_grad
        return ("weight", "average", *MOMENTS) if is_trained else ("weight",)

    @property
    def num_updates(self) -> int:
        """Steps that AdamW has taken: those of the run, less those that were skipped."""
        state = self._optimizer.state.get(self.trained[0].owner, {}) if self.trained else {}
        return int(state["step"]) if "step" in state else 0

    def moments(self, num_updates: int | None = None) -> list[dict[str, Tensor]]:
        """AdamW's moments of each trained piece; writing changes them.

        Args:
            num_updates: that they stand for; None leaves the optimizer's own count.
        """
        state = self._optimizer.state
        for owner in {id(piece.owner): piece.owner for piece in self.trained}.values():
            if "step" not in state[owner]:
                # The optimizer would make them in its first step; fused, it counts on the device.
                state[owner]["step"] = torch.zeros((), dtype=torch.float32, device=owner.device)
                state[owner] |= {key: torch.zeros_like(owner) for key in MOMENTS}
            if num_updates is not None:
                state[owner]["step"].fill_(num_updates)
        return [
            {key: piece.of(state[piece.owner][key]) for key in MOMENTS} for piece in self.trained
        ]

    @torch.no_grad()
    def gather(self, *, is_averaged: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Put parameters together one at a time: name and float32 tensor, right on the first rank.

        Every rank must walk through it to the end.

        Args:
            is_averaged: give the moving average of what is trained.
        """
        held = {piece.name: (piece, piece.weight) for piece in self.pieces}
        if is_averaged:
            pairs = zip(self.trained, self.average, strict=True)
            held |= {piece.name: (piece, average) for piece, average in pairs}
        for name, shape in self.shapes().items():
            if name in held and held[name][0].is_shared:
                yield name, held[name][1].float().view(shape)
                continue
            whole = torch.zeros(shape.numel(), device=self._device)
            if name in held:
                piece, stretch = held[name]
                whole[piece.start : piece.start + piece.length] = stretch
            if world_size() > 1:
                dist.reduce(whole, dst=0)
            yield name, whole.view(shape)
