"""DeepSpeed behind five methods; the only file that imports it.

The losses that reach the engine are already divided by the counts of the whole optimizer step, so
DeepSpeed's averaging over ranks is undone and that over micro-batches not asked for: one rank or
many, any ZeRO stage, accumulation or not, give one loss curve.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unimm.distributed import init_distributed, rank, world_size
from unimm.document import Batch
from unimm.model import Losses, UniMM
from unimm.nn.sequence import SequenceGroup
from unimm.nn.transformer import DecoderLayer
from unimm.training.config import EngineConfig, OptimizerConfig
from unimm.training.gradient_order import keep_order
from unimm.training.partition import Partition
from unimm.training.partition_files import read_pieces, write_pieces

# Small enough that the first gradients are on their way early in the backward; in numbers.
REDUCE_BUCKET_SIZE = 2**26
MAX_LIVE_PARAMETERS = 1_000_000_000  # gathered at once in ZeRO 3


def choose_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu`` or ``cuda`` into this process's device, and join the run."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    init_distributed(kind)
    return torch.device(kind, torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)


class Engine:
    """A model, its optimizer and its moving average, sharded as DeepSpeed does.

    Args:
        model: on the CPU, float32; the first rank's weights go to all others.
        config: how a step is computed.
        optimizer: AdamW's settings.
        device: of this process.
        grad_accum_steps: forwards of one optimizer step.

    Attributes:
        model: the model, whose weights the engine changes in place.
        share: which part of the data this rank reads; the ranks that share rows read the same.
        num_shares: parts of the data.
        is_skipped: scalar float32, 1 if the last step left the weights as they were.
    """

    def __init__(
        self,
        model: UniMM,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        *,
        device: torch.device,
        grad_accum_steps: int = 1,
    ) -> None:
        self.model, self.config = model, config
        self._ema_decay, self._max_norm = optimizer.ema_decay, optimizer.max_norm
        model.backbone.use_checkpointing = config.checkpoint_activations
        self.share = rank() // config.sequence_ranks
        self.num_shares = world_size() // config.sequence_ranks
        if config.sequence_ranks > 1:
            model.backbone.sequence = SequenceGroup(config.sequence_ranks)
        if config.compile:
            # Block by block: one graph serves all layers, so compiling takes a fraction as long.
            # Only what a block computes: around it, hooks of ZeRO 3 gather its weights.
            for block in model.repeated_blocks():
                block.forward = _compiled(block)
        if config.joins_products:
            model.backbone.join_products()
        if config.zero_stage < 3:
            model.to(device)
        self._adamw = _adamw(model, optimizer)
        settings = _deepspeed_config(config, optimizer, grad_accum_steps, device)
        self._engine = _initialize(model, self._adamw, config, settings)
        if config.compile and config.zero_stage in (1, 2):
            keep_order(self._engine.optimizer, model.repeated_blocks())
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self._never = self.is_skipped = torch.zeros((), device=device)
        self._partition = Partition(
            model, self._adamw, self._engine.optimizer, stage=config.zero_stage
        )

    def forward(self, batch: Batch, *, counts: Mapping[str, int] | None = None) -> Losses:
        """Compute the losses of a batch on the model's device."""
        return self._engine(batch, counts=counts)

    @torch.no_grad()
    def head_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Compute every head's losses ``(N,)`` without gradient; every rank must call it."""
        is_mixed = self.config.precision == "autocast"
        with torch.autocast(batch.labels.device.type, torch.bfloat16, enabled=is_mixed):
            return self.model.head_losses(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the step's loss."""
        if world_size() > 1:
            loss = loss * world_size()  # it is a share of a sum; DeepSpeed averages over ranks
        self._engine.backward(loss, scale_wrt_gas=False)
        if not self._engine.is_gradient_accumulation_boundary():
            self._engine.step()  # DeepSpeed counts micro-batches here; nothing moves yet

    def step(
        self,
        *,
        learning_rate: float,
        step: int,
        is_measured: bool = False,
        skip: Tensor | None = None,
    ) -> float | None:
        """Clip, move the weights and their average; once an optimizer step, after all backwards.

        Args:
            learning_rate: of this step.
            step: number of the step, from 0; the average warms up with it.
            is_measured: give the gradient's length before clipping, which waits for the device.
            skip: scalar float32, the same on all ranks; 1 leaves weights and moments as they are,
                as a gradient that is no number always does.
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        norm = None
        self.is_skipped = self._never if skip is None else skip
        if self.config.zero_stage == 0:  # whole gradients
            found = [grad for p in self._trained if (grad := p.grad) is not None]
            norm = nn.utils.get_total_norm(found)
            self.is_skipped = torch.where(norm < float("inf"), self.is_skipped, 1.0)
            if self._max_norm:  # AdamW's kernel divides gradients by it, in the one go
                scale = ((norm + 1e-6) / self._max_norm).clamp(min=1.0)
                self._adamw.grad_scale = scale  # pyright: ignore[reportAttributeAccessIssue]
        # What a gradient scaler sets: the fused kernel then does nothing, without asking the host.
        self._adamw.found_inf = self.is_skipped  # pyright: ignore[reportAttributeAccessIssue]
        self._engine.step()
        if not self._engine.was_step_applied():  # ZeRO looks at the whole gradient itself
            self.is_skipped = torch.ones_like(self.is_skipped)
        self._partition.update_average(1.0 - min(self._ema_decay, (1 + step) / (10 + step)))
        if not is_measured:
            return None
        return float(self._engine.get_global_grad_norm() if norm is None else norm)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the moving average in the weights' place for a while, to evaluate and draw."""
        self._partition.exchange_average()
        try:
            yield
        finally:
            self._partition.exchange_average()

    def copy_weights(self, target: UniMM | None, *, is_averaged: bool = False) -> None:
        """Copy float32 weights, one parameter at a time; every rank must call it.

        Args:
            target: on the first rank, a model on any device; it alone is filled.
            is_averaged: copy the moving average, from where it lies.
        """
        for name, weight in self._partition.gather(is_averaged=is_averaged):
            if target is not None:
                target.get_parameter(name).data.copy_(weight)

    def save(self, folder: Path) -> None:
        """Write what a resumed run needs; every rank must call it."""
        write_pieces(folder, self._partition)

    def load(self, folder: Path) -> None:
        """Read what ``save`` wrote, with any number of ranks, in any ZeRO stage.

        Args:
            folder: of the checkpoint.

        Raises:
            ValueError: the files are not whole or of another model.
        """
        read_pieces(folder, self._partition)
        self._partition.publish()


def _initialize(
    model: UniMM, adamw: torch.optim.AdamW, config: EngineConfig, settings: dict[str, Any]
) -> Any:
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Compiled at first use otherwise, and a killed compilation blocks every later run.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    if config.zero_stage == 3:
        # Parameter by parameter from the first rank, so that no GPU ever holds the whole model.
        dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        model.to(dtype)  # what is there already, Init leaves in its format
        deepspeed.zero.Init(module=model, config_dict_or_path=settings, dtype=dtype)
        functional.linear = _releasing_linear
        for block in model.repeated_blocks():  # each is gathered and reduced as one
            deepspeed.utils.set_z3_leaf_module(block, True)
            block.register_forward_pre_hook(_ask_for_gradient)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=adamw,
        config=settings,
        dist_init_required=False,
    )
    if config.zero_stage == 0:
        engine.zero_grad = adamw.zero_grad  # DeepSpeed's walks through the whole model
        # Alone it would copy all gradients into a buffer and back, to add up nothing.
        engine.enable_backward_allreduce = world_size() > 1
    return engine


def _releasing_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A product that keeps a parameter for its backward, not the weights gathered into it.

    PyTorch's own keeps a view of the weights, and so their memory. DeepSpeed's does not, but cannot
    be compiled; the compiler keeps parameters.
    """
    if torch.compiler.is_compiling():
        return torch._C._nn.linear(x, weight, bias)  # pyright: ignore[reportAttributeAccessIssue]
    from deepspeed.runtime.zero.linear import zero3_linear_wrap

    return zero3_linear_wrap(x, weight, bias)


def _ask_for_gradient(block: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Let a block's input have a gradient, even of frozen embeddings.

    DeepSpeed reduces the gradients of a block once the gradient of its input is there; without
    one it would take them before they are.
    """
    x, *others = args
    is_trained = any(p.requires_grad for p in block.parameters())
    if torch.is_grad_enabled() and is_trained and not x.requires_grad:
        x = x.detach().requires_grad_()
    return x, *others


def _compiled(block: nn.Module) -> Callable[..., Any]:
    """A block's forward, compiled once: rows of the trunk have one shape.

    A denoiser's pictures differ in number, which the compiler is told before it guesses otherwise.
    """
    if isinstance(block, DecoderLayer):
        return torch.compile(block.forward, dynamic=False)
    compiled = torch.compile(block.forward)

    def forward(*inputs: Tensor) -> Any:
        for x in inputs:
            torch._dynamo.maybe_mark_dynamic(x, 0)
        return compiled(*inputs)

    return forward


def _adamw(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2]
    vectors = [p for p in parameters if p.ndim < 2]
    decays = ((matrices, config.weight_decay), (vectors, 0.0))
    return torch.optim.AdamW(
        [{"params": group, "weight_decay": decay} for group, decay in decays if group],
        lr=config.learning_rate,
        betas=config.betas,
        fused=True,  # the kernel that can be told to skip a step
    )


def _deepspeed_config(
    config: EngineConfig, optimizer: OptimizerConfig, grad_accum_steps: int, device: torch.device
) -> dict[str, Any]:
    zero: dict[str, Any] = {
        "stage": config.zero_stage,
        "overlap_comm": device.type == "cuda",
        "reduce_bucket_size": REDUCE_BUCKET_SIZE,
        "stage3_max_live_parameters": MAX_LIVE_PARAMETERS,
    }
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device.type == "cuda"}
    return {
        "train_micro_batch_size_per_gpu": 1,  # DeepSpeed never sees the data
        "gradient_accumulation_steps": grad_accum_steps,
        "gradient_clipping": optimizer.max_norm if config.zero_stage else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # DeepSpeed's own would be compiled first
        "bf16": {"enabled": config.precision == "bfloat16"},
        "torch_autocast": {"enabled": config.precision == "autocast", "dtype": "bfloat16"},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": 10**9,
        "timers": {"throughput": {"enabled": False, "synchronized": False}},
    }
