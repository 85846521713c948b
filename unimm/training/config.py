"""Settings of a trunk's training run.

Order: the command line goes over the YAML file, which goes over the defaults here.
"""

from dataclasses import dataclass, field
from typing import Literal

from unimm.data.world.tasks import WorldMix
from unimm.model import ModelConfig


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Documents of the embedded world, encoded once and kept.

    Attributes:
        num_documents: training documents.
        num_held_out: documents of the validation split, and as many of the held-out split.
        seed: of the world.
        image_size: side of the pictures in pixels.
        mix: shares of the kinds of documents.
        num_processes: worker processes that sample; 0 samples in this one.
        cache_dir: where encoded shards are kept, a folder for each content.
    """

    num_documents: int = 300
    num_held_out: int = 24
    seed: int = 0
    image_size: int = 128
    mix: WorldMix = field(default_factory=WorldMix)
    num_processes: int = 0
    cache_dir: str = "~/.cache/unimm/shards"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is trained on: folders of encoded shards, or the embedded world.

    Attributes:
        train: folder of encoded shards (tokenizers/encode_shards.py writes it).
        validation: folder of unseen documents like those of training; empty for none.
        heldout: folder of documents with combinations that training never shows; empty for none.
        world: encode the embedded world instead of reading folders.
        row_length: positions of a row; documents are packed into rows.
        rows_per_step: rows of one optimizer step, over all ranks.
        micro_rows: rows of one forward; 0 takes a rank's whole share at once.
        drop_rate: how often texts and pictures are hidden, so that guidance works.
        num_workers: processes that make batches; 0 makes them in the loop.
        max_evaluated: documents of each held-out folder that are evaluated.
    """

    train: str = ""
    validation: str = ""
    heldout: str = ""
    world: WorldConfig | None = None
    row_length: int = 2048
    rows_per_step: int = 16
    micro_rows: int = 0
    drop_rate: float = 0.1
    num_workers: int = 0
    max_evaluated: int = 512

    def __post_init__(self) -> None:
        if bool(self.train) == (self.world is not None):
            raise ValueError("data needs either 'train' (a folder of shards) or 'world', not both")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter, 2019); only matrices are decayed.

    Attributes:
        learning_rate: at its height.
        betas: decay of the two moments.
        weight_decay: of matrices.
        max_norm: gradients are clipped to this length; 0 does not clip.
        ema_decay: of the moving average of the weights, which is what is saved.
        frozen: parts that keep their weights: beginnings of parameter names up to a dot, such as
            ``backbone`` or ``backbone.layers.0``.
    """

    learning_rate: float = 1.2e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    max_norm: float = 1.0
    ema_decay: float = 0.999
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Warm-up, then stable and decay (wsd) or a plain cosine; all shares of the run.

    Attributes:
        name: ``wsd`` holds the rate until ``hold``; ``cosine`` decays from the warm-up on.
        warmup: share in which the rate rises.
        hold: share at which ``wsd`` begins to decay.
        final: share of the height at the end.
    """

    name: Literal["wsd", "cosine"] = "wsd"
    warmup: float = 0.02
    hold: float = 0.6
    final: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.warmup <= self.hold <= 1:
            raise ValueError(
                f"warmup {self.warmup} and hold {self.hold} must rise within 0 to 1; "
                "they are shares of the run"
            )


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a step is computed.

    Attributes:
        device: ``auto`` takes the GPU where there is one.
        precision: ``float32``; ``autocast`` computes in bfloat16 over float32 weights, the
            residual stream included; ``bfloat16`` keeps bfloat16 weights and float32 masters
            (ZeRO 1 to 3).
        zero_stage: what DeepSpeed shards over the ranks: 0 nothing, 1 optimizer state, 2 gradients
            too, 3 weights too.
        offload_optimizer: keep float32 masters and optimizer state in the host's memory, where
            AdamW runs (ZeRO 1 to 3).
        compile: compile the trunk's layers and denoisers' blocks (GPU only pays).
        checkpoint_activations: recompute a layer in the backward instead of keeping it.
        sequence_ranks: processes that share each row, for rows too long for one GPU.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "autocast", "bfloat16"] = "float32"
    zero_stage: Literal[0, 1, 2, 3] = 0
    offload_optimizer: bool = False
    compile: bool = False
    checkpoint_activations: bool = False
    sequence_ranks: int = 1

    def __post_init__(self) -> None:
        if self.zero_stage == 0 and self.precision == "bfloat16":
            raise ValueError(
                "zero_stage 0 with precision bfloat16 trains wrongly in DeepSpeed (its first Adam "
                "step is off): use zero_stage 1, or precision autocast"
            )
        if self.zero_stage == 0 and self.offload_optimizer:
            raise ValueError(
                "zero_stage 0 keeps the optimizer whole on every GPU: offload_optimizer needs "
                "zero_stage 1, 2 or 3"
            )

    @property
    def joins_products(self) -> bool:
        """Whether matrices that read the same are put together for one product.

        Not in ZeRO 3: what was put together would stay when the gathered weights go.
        """
        return self.compile and self.zero_stage < 3


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """What a run does about losses that are no numbers, and about ranks that do not come.

    Attributes:
        spike_ratio: a step whose loss is above this many times its running mean is skipped, as one
            whose loss or gradient is no number always is; 0 lets spikes pass.
        max_skipped: steps skipped in a row that end the run.
        hang_seconds: a rank that waits longer than this in one phase names the ranks it waits for
            and ends the run; 0 waits for ever. It must be above the time that drawing samples and
            saving take, and below the collectives' own time-out of ten minutes.
    """

    spike_ratio: float = 0.0
    max_skipped: int = 5
    hang_seconds: float = 540.0

    def __post_init__(self) -> None:
        if self.spike_ratio and self.spike_ratio <= 1:
            raise ValueError(
                f"spike_ratio {self.spike_ratio} skips ordinary steps: give 2 or more, or 0 to "
                "let spikes pass"
            )
        if self.max_skipped < 1:
            raise ValueError(f"max_skipped must be at least 1, got {self.max_skipped}")


@dataclass(frozen=True, kw_only=True)
class LoggingConfig:
    """What is written, and how often, in optimizer steps; 0 is never.

    Attributes:
        log_every: a line of the log; skipped steps are told then.
        evaluate_every: losses on held-out documents; always at the end.
        sample_every: a grid of drawn pictures; always at the end.
        save_every: checkpoints to resume from.
        keep_checkpoints: older ones are deleted.
        wandb: also log to Weights and Biases.
        project: name there.
    """

    log_every: int = 10
    evaluate_every: int = 500
    sample_every: int = 500
    save_every: int = 500
    keep_checkpoints: int = 2
    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "unimm"

    def __post_init__(self) -> None:
        if self.log_every < 1 or self.keep_checkpoints < 1:
            raise ValueError("log_every and keep_checkpoints must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run of a trunk; running it again goes on from its last checkpoint.

    Attributes:
        run_dir: log, checkpoints, samples and the finished ``model/`` go here.
        image_tokenizer: folder of a trained image tokenizer.
        text_tokenizer: ``tokenizer.json`` or its folder.
        model: architecture.
        initial_model: folder of a trained model to start from: an earlier stage, or a trunk that
            drew by another objective. Weights of other names stay as drawn.
        initial_llm: folder of a Llama or Qwen3 model in the format of ``transformers`` that trunk,
            text embedding and text head start from; ``model.backbone`` must have its sizes, and
            ``text_tokenizer`` be its tokenizer, to which special tokens are appended.
        data: what is trained on.
        optimizer: AdamW.
        schedule: of the learning rate.
        engine: how a step is computed.
        guard: when steps are skipped and when the run ends itself.
        logging: what is written.
        max_steps: optimizer steps at most.
        max_minutes: wall-clock time at most; the learning rate then follows the time too, and two
            runs are no longer equal.
        max_flops: counted floating-point operations at most (the image tokenizer's are not): runs
            that end there have done equal work, whatever their objective.
        seed: of everything.
    """

    run_dir: str
    image_tokenizer: str
    text_tokenizer: str
    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    initial_model: str = ""
    initial_llm: str = ""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    guard: GuardConfig = field(default_factory=GuardConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    max_steps: int = 1000
    max_minutes: float | None = None
    max_flops: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.initial_model and self.initial_llm:
            raise ValueError("a run starts from initial_model or from initial_llm, not from both")
        sharing, backbone = self.engine.sequence_ranks, self.model.backbone
        if sharing < 1 or backbone.num_heads % sharing or backbone.num_kv_heads % sharing:
            raise ValueError(
                f"sequence_ranks {sharing} must divide num_heads {backbone.num_heads} and "
                f"num_kv_heads {backbone.num_kv_heads}: each rank takes a share of the heads"
            )
        if self.max_flops is not None and self.max_flops <= 0:
            raise ValueError(f"max_flops must be positive, got {self.max_flops}")
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {self.max_steps}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise ValueError(f"max_minutes must be positive, got {self.max_minutes}")
