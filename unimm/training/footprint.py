"""What a training step keeps in memory: every tensor's bytes, counted while they live.

It works on real tensors, and on tensors without data: so a planner can run a model that does not
fit this machine.
"""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
)

from unimm.document import Batch
from unimm.model import UniMM
from unimm.nn.attention import Visibility
from unimm.nn.sequence import SequenceGroup, Trade
from unimm.nn.transformer import DecoderLayer


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside of it, as long as they live.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def ignore(self, tensor: Tensor) -> None:
        """Do not count a tensor that was there before."""
        storage = tensor.untyped_storage()
        self._seen.add(storage._cdata)
        weakref.finalize(storage, self._forget, storage._cdata, 0)  # its address may come again

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.device.type != "meta":
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@dataclass(frozen=True, kw_only=True)
class StepBytes:
    """Peaks of one forward and backward, without the weights, in bytes.

    Attributes:
        with_gradients: every gradient stays where it was made.
        without_gradients: every gradient leaves as soon as it is whole.
    """

    with_gradients: int
    without_gradients: int


def measure_step(
    make_model: Callable[[], UniMM],
    batch: Batch,
    *,
    bind: Callable[[UniMM], None],
    precision: str,
    is_compiled: bool,
    is_checkpointed: bool,
    sequence_ranks: int = 1,
) -> StepBytes:
    """Run a forward and backward on tensors without data.

    Args:
        make_model: builds the model; called with tensors that take no memory.
        batch: packed rows, as one micro-batch of a rank.
        bind: gives the model its image tokenizer.
        precision: of ``EngineConfig``.
        is_compiled: layers are compiled, which recomputes what is cheap.
        is_checkpointed: layers are recomputed.
        sequence_ranks: ranks that share each row.
    """
    peaks: list[int] = []
    for is_kept in (True, False):
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake:
            model = make_model()
        bind(model)
        model.backbone.use_checkpointing = is_checkpointed
        if sequence_ranks > 1:
            model.backbone.sequence = _ShapesOfGroup(sequence_ranks)
        if precision == "bfloat16":
            with fake:
                for parameter in model.parameters():
                    parameter.data = parameter.data.to(torch.bfloat16)
        if is_compiled and not is_checkpointed:
            for layer in model.backbone.layers:
                assert isinstance(layer, DecoderLayer)
                layer.forward = partial(_as_compiled, layer, layer.forward)  # pyright: ignore
        live = LiveBytes()
        for parameter in model.parameters():
            live.ignore(parameter)
            if not is_kept:
                parameter.register_post_accumulate_grad_hook(_drop_gradient)
        is_mixed = precision == "autocast"
        with fake, live:
            visibility = Visibility(
                cu_seqlens=batch.cu_seqlens,
                max_seqlen=batch.max_seqlen,
                kernel=_FlashShapes.apply,
            )
            with torch.autocast("cpu", torch.bfloat16) if is_mixed else nullcontext():
                total = model(batch, backend=visibility).total
            total.backward()
        peaks.append(live.peak)
    return StepBytes(with_gradients=peaks[0], without_gradients=peaks[1])


class _FlashShapes(torch.autograd.Function):
    """An attention kernel that keeps what flash attention keeps, and computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Tensor:
        """``(n, H, head_dim)`` each."""
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:2], dtype=torch.float32)  # log-sum-exp
        ctx.save_for_backward(query, key, value, out, sums)
        return out

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        """Gradients of query, key and value."""
        query, key, value = ctx.saved_tensors[:3]
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None, None


class _ShapesOfGroup(SequenceGroup):
    """One rank of a group whose other ranks are not there: right in its sizes only."""

    def __init__(self, size: int) -> None:
        self.size, self.place, self._trade = size, 0, Trade.apply

    def trade(self, x: Tensor, give: int, take: int) -> Tensor:
        """As large as what the others would send."""
        return torch.cat([x.chunk(self.size, dim=give)[0]] * self.size, dim=take)

    def collect(self, x: Tensor) -> Tensor:
        """As large as the whole rows."""
        return torch.cat([x] * self.size, dim=1)


def _as_compiled(layer: DecoderLayer, forward: Callable[..., Tensor], *args: Any) -> Tensor:
    """Run a layer that keeps what a compiled one does: products and attention."""
    width = layer.mlp.down_proj.in_features

    def policy(_context: Any, op: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
        is_product = op is torch.ops.aten.mm.default
        is_last = is_product and args[1].shape[0] == width  # it is only added to the stream
        is_attention = op in (torch.ops.aten.empty_like.default, torch.ops.aten.new_empty.default)
        if (is_product and not is_last) or is_attention:
            return CheckpointPolicy.MUST_SAVE
        return CheckpointPolicy.PREFER_RECOMPUTE

    return checkpoint(  # pyright: ignore[reportReturnType]
        forward,
        *args,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(create_selective_checkpoint_contexts, policy),
    )


def _drop_gradient(parameter: Tensor) -> None:
    parameter.grad = None
