"""UniMM: one trunk, a text head, and any number of image objectives.

Legend: ``B`` rows, ``L`` row length, ``D`` width, ``N`` positions one head reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unimm.document import NO_CODE, Batch, SpecialIds
from unimm.nn.attention import Backend, Visibility, batch_visibility
from unimm.nn.cross_entropy import token_losses
from unimm.nn.denoiser import Denoiser
from unimm.nn.embeddings import Embedding
from unimm.nn.linear import Linear
from unimm.nn.rows import has_row_kernels, place_rows, select_rows
from unimm.nn.transformer import Backbone, BackboneConfig
from unimm.objectives.base import ImageSpec, Objective, ObjectiveConfig
from unimm.objectives.next_token import NextTokenConfig
from unimm.tokenizer.image import ImageTokenizer

NORM_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Architecture of a model.

    Attributes:
        backbone: sizes of the trunk.
        objectives: how pictures may be drawn; documents name one of them.
        text_weight: weight of the text loss.
        is_tied: the text head shares the text embedding.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    objectives: tuple[ObjectiveConfig, ...] = (NextTokenConfig(),)
    text_weight: float = 1.0
    is_tied: bool = True

    def __post_init__(self) -> None:
        names = [objective.name for objective in self.objectives]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a model needs one or more objectives, each once; got {names}")
        shares = [objective.share for objective in self.objectives]
        if min(shares) <= 0:
            raise ValueError(f"shares of objectives must be positive, got {shares}")

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the objectives, in their fixed order."""
        return tuple(objective.name for objective in self.objectives)

    def find_objective(self, name: str | None = None) -> ObjectiveConfig:
        """Configuration of an objective, by default of the first.

        Raises:
            ValueError: if the model was not built with it.
        """
        found = [objective for objective in self.objectives if objective.name == name]
        if name and not found:
            raise ValueError(f"this model draws by {', '.join(self.heads)}, not by {name!r}")
        return found[0] if found else self.objectives[0]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the documents that each objective draws; they sum to 1."""
        total = sum(objective.share for objective in self.objectives)
        return {objective.name: objective.share / total for objective in self.objectives}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What one forward over a batch costs.

    Attributes:
        total: scalar to differentiate: sum over heads of weight * share * sum / count, so that text
            and pictures weigh the same however many objectives share the documents.
        sums: head -> sum of its losses in nats (detached).
        counts: head -> positions it predicted in this batch.
    """

    total: Tensor
    sums: dict[str, Tensor]
    counts: dict[str, int]


class UniMM(nn.Module):
    """Backbone, embeddings, text head and objectives.

    Args:
        config: architecture.
        special: special token ids and the text vocabulary's size.
        spec: sizes of the image tokenizer.
    """

    def __init__(self, config: ModelConfig, *, special: SpecialIds, spec: ImageSpec) -> None:
        super().__init__()
        dim = config.backbone.dim
        self.config, self.special, self.spec = config, special, spec
        self.text_embedding = Embedding(special.vocab_size, dim)
        # One table for all objectives; the last row is the null picture of guidance.
        self.code_embedding = Embedding(spec.codebook_size + 1, dim)
        for table in (self.text_embedding, self.code_embedding):
            nn.init.normal_(table.weight, std=NORM_STD)
        self.backbone = Backbone(config.backbone)
        self.text_head = Linear(dim, special.vocab_size)
        nn.init.normal_(self.text_head.weight, std=NORM_STD)
        self.objectives = nn.ModuleDict(
            {objective.name: objective.build(dim, spec) for objective in config.objectives}
        )
        self.tie_weights()

    def tie_weights(self) -> None:
        """Share the text embedding with the text head (again, after parameters were replaced)."""
        if self.config.is_tied:
            self.text_head.weight = self.text_embedding.weight

    def bind(self, image_tokenizer: ImageTokenizer) -> None:
        """Hand the objectives the frozen image tokenizer, which is no part of the model."""
        for name in self.config.heads:
            self.objective(name).bind(image_tokenizer)

    def objective(self, name: str) -> Objective[Any]:
        """The objective of that name.

        Raises:
            ValueError: if the model was not built with it.
        """
        if name not in self.objectives:
            raise ValueError(f"this model draws by {[*self.objectives]}, not by {name!r}")
        module = self.objectives[name]
        assert isinstance(module, Objective)
        return module

    def to_ship(self, heads: Sequence[str] = ()) -> "UniMM":
        """A copy with what drawing needs; it must be bound again.

        Args:
            heads: the objectives that stay, the default one first; none keeps all.

        Raises:
            ValueError: if the model was not built with one of them.
        """
        kept = [self.config.find_objective(name) for name in heads or self.config.heads]
        config = replace(self.config, objectives=tuple(kept))
        copy = UniMM(config, special=self.special, spec=self.spec)
        own = copy.state_dict()
        copy.load_state_dict({k: v for k, v in self.state_dict().items() if k in own})
        return copy.eval()

    def repeated_blocks(self) -> Iterator[nn.Module]:
        """Layers of the trunk and blocks of denoisers: what a run compiles, one by one."""
        yield from self.backbone.layers
        for module in self.modules():
            if isinstance(module, Denoiser):
                yield from module.blocks

    def lay_together(self) -> None:
        """Move matrices that read the same behind each other, for steps that take them as one."""
        for module in self.modules():
            if isinstance(module, (Backbone, Denoiser)):
                module.lay_together()

    def embed_codes(self, code_ids: Tensor) -> Tensor:
        """Embed context codes ``(...)`` to ``(..., D)``; any below zero is the null picture."""
        null = self.spec.codebook_size
        return self.code_embedding(torch.where(code_ids < 0, null, code_ids))

    def embed_inputs(self, input_ids: Tensor, code_ids: Tensor) -> Tensor:
        """Embed text ids, and codes where there are any: ``(B, L)`` twice to ``(B, L, D)``."""
        is_code = code_ids != NO_CODE
        codes = self.embed_codes(code_ids)
        return torch.where(is_code[..., None], codes, self.text_embedding(input_ids))

    def _embed_rows(self, batch: Batch) -> Tensor:
        """Embed a packed batch, ``(B L, D)``; by our kernels where they run.

        These round to the format of autocast and leave zeros at padding, which nobody reads.
        """
        input_ids, code_ids = batch.input_ids.flatten(), batch.code_ids.flatten()
        if not has_row_kernels(input_ids):
            return self.embed_inputs(input_ids, code_ids)
        kind, dtype = input_ids.device.type, self.text_embedding.weight.dtype
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else dtype
        is_code, null = code_ids != NO_CODE, self.spec.codebook_size
        is_text = ~is_code & (input_ids != self.special.pad)
        x = self.text_embedding(torch.where(is_text, input_ids, -1), None, dtype)
        codes = torch.where(code_ids < 0, null, code_ids)
        return self.code_embedding(torch.where(is_code, codes, -1), x, dtype)

    def forward(
        self,
        batch: Batch,
        *,
        counts: Mapping[str, int] | None = None,
        backend: Backend | Visibility = "auto",
    ) -> Losses:
        """Compute every head's loss on a packed batch.

        Args:
            batch: packed rows on the model's device.
            counts: positions of each head over the whole optimizer step, all micro-batches and
                ranks, so that the gradient does not depend on how a step is cut; by default this
                batch's own.
            backend: of the attention, or who sees whom in a form of the caller's.
        """
        losses = self.head_losses(batch, backend=backend)
        local = {head: int(batch.slots[head].index.shape[0]) for head in losses}
        sums = {head: loss.sum() for head, loss in losses.items()}
        of_step = counts or local
        shares = [
            loss * (self._weight(head) / max(of_step[head], 1)) for head, loss in sums.items()
        ]
        return Losses(
            total=sum(shares[1:], shares[0]),
            sums={head: loss.detach() for head, loss in sums.items()},
            counts=local,
        )

    def head_losses(
        self, batch: Batch, *, backend: Backend | Visibility = "auto"
    ) -> dict[str, Tensor]:
        """Loss of every position that a head reads: head -> ``(N,)`` float32, in slot order.

        Every objective runs, in the same order, whether the batch holds its pictures or not: one
        that has none runs on a picture of zeros, and its result is multiplied by zero. Otherwise
        ranks would disagree on which gradients to reduce.
        """
        flat, draws, idle = self.run_trunk(batch, backend=backend)
        width = flat.shape[-1]
        slots = batch.slots
        heads = ["text", *(x for x in self.config.heads if slots[x].tokens is not None)]
        seen = dict(zip(heads, select_rows(flat, [slots[x].index for x in heads]), strict=True))
        labels = batch.labels.flatten().index_select(0, slots["text"].index)
        losses = {"text": token_losses(self.text_head(seen["text"]), labels)}
        for name in self.config.heads:
            objective = self.objective(name)
            if name in seen:
                losses[name] = objective.loss(seen.pop(name), draws[name])
                continue
            # At the place of a real one: the order of gradients must not differ either.
            filled = idle.get(name, flat.new_zeros(self.spec.grid_size**2, width))
            losses[name] = objective.loss(flat[:1] + filled, draws[name]).sum()[None] * 0.0
        return losses

    def run_trunk(
        self, batch: Batch, *, backend: Backend | Visibility = "auto"
    ) -> tuple[Tensor, dict[str, Any], dict[str, Tensor]]:
        """Run the trunk over a packed batch.

        Returns:
            Hidden states ``(B L, D)``; each objective's draw; and what objectives without a picture
            filled, which entered no row.
        """
        x = self._embed_rows(batch)
        width = x.shape[-1]
        draws: dict[str, Any] = {}
        idle: dict[str, Tensor] = {}  # what idle objectives fill; it never enters the row
        for name in self.config.heads:
            objective, slots = self.objective(name), batch.slots[name]
            tokens = objective.zeros(x.device) if slots.tokens is None else slots.tokens
            generators = [torch.Generator().manual_seed(seed) for seed in slots.seeds or (0,)]
            draws[name] = objective.draw(tokens, generators)
            if objective.fills_slots:
                filled = objective.embed(draws[name]).to(x.dtype)  # (N, D)
                if slots.tokens is None:
                    idle[name] = filled
                else:
                    x = place_rows(x, filled, slots.index)
        if not isinstance(backend, Visibility):
            head_width = self.config.backbone.head_width
            backend = batch_visibility(batch, backend, dtype=x.dtype, head_width=head_width)
        hidden = self.backbone(x.view(*batch.input_ids.shape, width), batch.position_ids, backend)
        flat = hidden.reshape(-1, width)  # (B L, D)
        return flat, draws, idle

    def _weight(self, head: str) -> float:
        if head == "text":
            return self.config.text_weight
        objective = self.config.objectives[self.config.heads.index(head)]
        return objective.weight * self.config.shares[head]
