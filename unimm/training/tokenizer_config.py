"""Settings of an image tokenizer's training run.

Order: the command line goes over the YAML file, which goes over the defaults here.
"""

from dataclasses import dataclass, field

from unimm.checkpoint.weights import Precision
from unimm.tokenizer.image import ImageTokenizerConfig
from unimm.tokenizer.losses import LossConfig


@dataclass(frozen=True, kw_only=True)
class PictureSourceConfig:
    """Where the pictures come from.

    Attributes:
        folder: of one's own pictures; None draws Storyworld scenes.
        is_cropped: cut and resize the folder's pictures instead of refusing other sizes.
        pool_size: rendered pictures kept on the device, the oldest replaced first.
        reads_per_picture: how often a rendered picture is read on average.
        num_workers: processes that sample scenes or decode files; 0 does it in the loop.
    """

    folder: str | None = None
    is_cropped: bool = False
    pool_size: int = 65536
    reads_per_picture: float = 4.0
    num_workers: int = 8


@dataclass(frozen=True, kw_only=True)
class TokenizerTrainConfig:
    """A training run of an image tokenizer.

    Attributes:
        run_dir: where logs, sample grids, the state and the finished ``image_tokenizer/`` go; a run
            that finds its state there goes on from it.
        tokenizer: architecture.
        loss: weights of the losses.
        source: where the pictures come from.
        seed: of everything.
        device: ``cpu`` or ``cuda``.
        is_compiled: compile encoder, decoder and loss; about a minute at the start, half more
            speed after it. Without it runs of under three minutes get further.
        is_mixed: convolve in bfloat16, weights and losses stay float32.
        batch_size: B.
        max_steps: optimizer steps at most.
        max_minutes: wall-clock time at most; the learning rate then follows the time.
        learning_rate: of AdamW at its height.
        betas: of AdamW.
        weight_decay: of AdamW.
        max_norm: gradients are clipped to this length.
        warmup: share of the training in which the rate rises.
        hold: share at which it begins to fall, as a cosine.
        final: share of the height that it falls to.
        average_decay: of the moving average of the weights.
        bypass: share of a batch that is decoded from latents instead of codes.
        replace_every: steps between replacements of dead codes.
        replace_until: share of the training after which codes are left alone.
        replace_below: a code used less than this share of the mean use is dead.
        log_every: steps between lines of the log.
        sample_every: steps between evaluations on held-out pictures, with a sample grid.
        save_every: steps between saved states and tokenizers.
        precision: of the convolutions in the finished folder. A rounded tokenizer is another one:
            encode with the folder that this run leaves.
    """

    run_dir: str
    tokenizer: ImageTokenizerConfig = field(default_factory=ImageTokenizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    source: PictureSourceConfig = field(default_factory=PictureSourceConfig)
    seed: int = 0
    device: str = "cpu"
    is_compiled: bool = False
    is_mixed: bool = False
    batch_size: int = 128
    max_steps: int = 1000
    max_minutes: float | None = None
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    max_norm: float = 1.0
    warmup: float = 0.03
    hold: float = 0.5
    final: float = 0.02
    average_decay: float = 0.999
    bypass: float = 0.25
    replace_every: int = 50
    replace_until: float = 0.7
    replace_below: float = 0.03
    log_every: int = 50
    sample_every: int = 500
    save_every: int = 1000
    precision: Precision = "float32"

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_steps < 1:
            raise ValueError(
                f"batch_size {self.batch_size} and max_steps {self.max_steps} must be at least 1"
            )
        if not 0 <= self.bypass < 1:
            raise ValueError(f"bypass {self.bypass} must be a share of the batch in [0, 1)")
        if not 0 < self.warmup <= self.hold < 1:
            raise ValueError(
                f"warmup {self.warmup} and hold {self.hold} must be rising shares in (0, 1)"
            )
