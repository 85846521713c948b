"""What a training step keeps in memory: every tensor's bytes, counted while they live.

It works on real tensors, and on tensors without data: so a planner can run a model that does not
fit this machine.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unimm.document import Batch
from unimm.model import UniMM
from unimm.nn.attention import Visibility, batch_visibility, gpu_backend
from unimm.nn.sequence import SequenceGroup, Trade
from unimm.training.compiled import CompiledSizes
from unimm.training.config import EngineConfig
from unimm.training.gpu_kernels import GpuKernels, attention_sizes


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside of it, as long as they live.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
        bare_peak: the same without tensors that were set aside.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.bare_peak = 0
        self._aside = 0
        self._is_counting = True
        self._seen: set[int] = set()

    @contextmanager
    def counting(self, is_counting: bool) -> Iterator[None]:
        """Count tensors that are made within it, or do not."""
        before, self._is_counting = self._is_counting, is_counting
        try:
            yield
        finally:
            self._is_counting = before

    def set_aside(self, tensor: Tensor) -> None:
        """Leave a tensor, which must stay alive, out of ``bare_peak`` from now on."""
        self._aside += tensor.untyped_storage().nbytes()

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
        key, size = storage._cdata, storage.nbytes() if self._is_counting else 0
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        self.bare_peak = max(self.bare_peak, self.now - self._aside)
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
    engine: EngineConfig,
) -> StepBytes:
    """Run a forward and backward on tensors without data.

    Args:
        make_model: builds the model; called with tensors that take no memory.
        batch: packed rows, as one micro-batch of a rank.
        bind: gives the model its image tokenizer.
        engine: how the step is computed.
    """
    fake, live = FakeTensorMode(allow_non_fake_inputs=True), LiveBytes()
    with fake:
        model = make_model()
    bind(model)
    model.backbone.use_checkpointing = engine.checkpoint_activations
    if engine.joins_products:
        model.backbone.join_products()
    if engine.sequence_ranks > 1:
        model.backbone.sequence = _SizesOfGroup(engine.sequence_ranks)
    if engine.precision == "bfloat16":
        with fake:
            for parameter in model.parameters():
                parameter.data = parameter.data.to(torch.bfloat16)
    if engine.compile:
        compiled = CompiledSizes(live.counting)
        for module in model.repeated_blocks():
            compiled.replace_forward(module)
    for parameter in model.parameters():
        live.ignore(parameter)
        parameter.register_post_accumulate_grad_hook(lambda p: live.set_aside(_gradient(p)))
    is_mixed = engine.precision == "autocast"
    on_gpu = GpuKernels(is_mixed=is_mixed, counting=live.counting)
    with fake:
        visibility = _visibility(batch, engine, model.config.backbone.head_width)
    with fake, live, _plain_linear(), on_gpu if engine.device != "cpu" else nullcontext():
        with torch.autocast("cpu", torch.bfloat16) if is_mixed else nullcontext():
            total = model(batch, backend=visibility).total
        _backward(total)
    return StepBytes(with_gradients=live.peak, without_gradients=live.bare_peak)


def _visibility(batch: Batch, engine: EngineConfig, head_width: int) -> Visibility:
    """As a GPU would be told who sees whom; only what it keeps is computed."""
    is_half, on_gpu = engine.precision != "float32", engine.device != "cpu"
    backend = gpu_backend(batch, is_half=is_half, head_width=head_width, has_triton=on_gpu)
    if backend == "spans":  # these kernels tell sizes without a GPU
        return batch_visibility(batch, backend, head_width=head_width)
    return Visibility(
        cu_seqlens=batch.cu_seqlens if backend == "varlen" else None,
        max_seqlen=batch.max_seqlen,
        flex=True if backend == "flex" else None,  # not looked at
        kernel=attention_sizes,
    )


@contextmanager
def _plain_linear() -> Iterator[None]:
    """PyTorch's own: DeepSpeed puts another in its place once a process has begun with ZeRO 3."""
    plain = torch._C._nn.linear  # pyright: ignore[reportAttributeAccessIssue]
    found, functional.linear = functional.linear, plain
    try:
        yield
    finally:
        functional.linear = found


def _backward(total: Tensor) -> None:
    """As ``total.backward()``, inside of which a mode for functions would be off."""
    torch.autograd.Variable._execution_engine.run_backward(
        (total,), (torch.ones_like(total),), False, False, (), True, True
    )


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


class _SizesOfGroup(SequenceGroup):
    """One rank of a group whose other ranks are not there: right in its sizes only."""

    def __init__(self, size: int) -> None:
        self.size, self.place, self._trade = size, 0, Trade.apply

    def trade(self, x: Tensor, give: int, take: int) -> Tensor:
        """As large as what the others would send."""
        return torch.cat([x.chunk(self.size, dim=give)[0]] * self.size, dim=take)

    def collect(self, x: Tensor) -> Tensor:
        """As large as the whole rows."""
        return torch.cat([x] * self.size, dim=1)
