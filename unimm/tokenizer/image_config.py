"""What an image tokenizer is made of, and which code layouts it is trained to give."""

from dataclasses import dataclass, field

from unimm.tokenizer.autoencoder import AutoencoderConfig
from unimm.tokenizer.pyramid import check_grid, parse_schedule
from unimm.tokenizer.schedules import SINGLE
from unimm.tokenizer.schemes import QuantizerConfig


@dataclass(frozen=True, kw_only=True)
class ImageTokenizerConfig:
    """Architecture of an image tokenizer.

    Attributes:
        autoencoder: sizes of encoder and decoder.
        quantizer: scheme, codebook size and latent channels.
        image_size: side in pixels of the pictures it was trained on; any size that ``downsample``
            divides works, this one works best.
        schedules: which code layouts it is trained to draw, ``single`` or pyramids such as
            ``1-2-4-8-16``. With ``single`` among them all share one codebook; without it pyramids
            have one of their own, and single-scale codes serve contexts only.
    """

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    quantizer: QuantizerConfig = field(default_factory=QuantizerConfig)
    image_size: int = 128
    schedules: tuple[str, ...] = (SINGLE,)

    def __post_init__(self) -> None:
        if self.image_size % self.autoencoder.downsample:
            raise ValueError(
                f"image_size {self.image_size} must be a multiple of {self.autoencoder.downsample}"
            )
        if not self.schedules or len(set(self.schedules)) < len(self.schedules):
            raise ValueError(f"give one or more schedules, each once; got {self.schedules}")
        side = self.image_size // self.autoencoder.downsample
        for scales in self.pyramids:
            check_grid(scales, side, side)
        if self.pyramids and self.quantizer.name != "vq":
            raise ValueError(
                f"a pyramid quantizes residuals of any length, which {self.quantizer.name} cannot: "
                "use the quantizer vq, or the schedule single"
            )

    @property
    def pyramids(self) -> tuple[tuple[int, ...], ...]:
        """Sides of the grids of each schedule that is a pyramid."""
        return tuple(parse_schedule(name) for name in self.schedules if name != SINGLE)

    @property
    def is_shared(self) -> bool:
        """Whether single grids and pyramids have one codebook."""
        return SINGLE in self.schedules
