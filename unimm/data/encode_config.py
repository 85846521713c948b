"""Settings of an encoding run, and the sources of documents that they name."""

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from unimm.data.files import FileSource, PictureRule
from unimm.data.formats import FormatConfig
from unimm.data.formats.jsonl import JsonlFormat
from unimm.data.sources import Source, WorldSource
from unimm.data.world.tasks import WorldMix


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """What is encoded, by which tokenizer, and how."""

    output: str
    """Folder of shards to write; a broken run goes on where it stopped."""
    image_tokenizer: str
    """Folder of a trained image tokenizer."""
    split: Literal["train", "validation", "heldout"] = "train"
    """Of the world; for own documents only a label."""
    documents: str = ""
    """JSON lines of own documents; empty takes 'sources' or else the embedded world."""
    sources: dict[str, FormatConfig] = field(default_factory=dict)
    """A mixture: folder to write below 'output' -> format, files and weight."""
    resize: Literal["crop", "error"] = "crop"
    """What to do with own pictures of another size: cut and resize, or skip and count."""
    max_pixels: int = PictureRule.max_pixels
    """Larger own pictures are skipped and counted."""
    max_pictures: int = PictureRule.max_pictures
    """Own documents with more are skipped and counted."""
    max_characters: int = PictureRule.max_characters
    """Own documents with more are skipped and counted."""
    num_documents: int = 80_000
    """Of the world."""
    mix: WorldMix = field(default_factory=WorldMix)
    """Shares of the world's kinds of documents."""
    seed: int = 0
    """Of the world."""
    image_size: int = 128
    """Side of the pictures in pixels."""
    with_latents: bool = False
    """Also keep the latents, which the diffusion objectives learn from: eight times the size."""
    documents_per_shard: int = 512
    """What one worker process prepares at a time."""
    num_processes: int = 0
    """Worker processes; 0 does everything in one."""
    batch_size: int = 512
    """Pictures encoded at once."""
    part: str = ""
    """k/n encodes every n-th shard from the k-th (0 to n-1) on; torchrun's rank by default."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where pictures are drawn and encoded; under torchrun the rank's own GPU."""

    def __post_init__(self) -> None:
        if self.documents and self.sources:
            raise ValueError("give either 'documents' or 'sources', not both")
        for name in self.sources:
            if not re.fullmatch(r"[\w.-]+", name) or name.startswith("."):
                raise ValueError(f"source {name!r} becomes a folder: use letters, digits, '_', '-'")
        self.parts()

    def parts(self) -> tuple[int, int]:
        """Which part of the shards this process encodes, and of how many.

        Raises:
            ValueError: the part is not k/n with k below n.
        """
        if not self.part:
            return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        found = re.fullmatch(r"(\d+)/(\d+)", self.part)
        if not found or int(found[1]) >= int(found[2]):
            raise ValueError(f"part {self.part!r} must be k/n with k from 0 to n-1, such as 0/8")
        return int(found[1]), int(found[2])


def open_sources(config: EncodeConfig) -> dict[str, Source]:
    """Open what is to be encoded.

    Returns:
        Folder below the output (empty for the output itself) -> documents.
    """
    formats = config.sources
    if config.documents:
        formats = {"": JsonlFormat(files=config.documents)}
    rule = PictureRule(
        image_size=config.image_size,
        resize=config.resize,
        max_pixels=config.max_pixels,
        max_pictures=config.max_pictures,
        max_characters=config.max_characters,
    )
    if formats:
        return {
            name: FileSource(found, rule=rule, num_processes=config.num_processes)
            for name, found in formats.items()
        }
    world = WorldSource(
        split=config.split,
        seed=config.seed,
        num_documents=config.num_documents,
        image_size=config.image_size,
        mix=config.mix,
    )
    return {"": world}
