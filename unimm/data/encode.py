"""From a source of documents to a folder of encoded shards.

Worker processes sample or decode whole shards while this process shows their pictures on the device
and encodes them.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from unimm.data.shards import ShardWriter
from unimm.data.sources import RawShard, Source
from unimm.document import ImageTokens
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.schedules import SINGLE

logger = logging.getLogger(__name__)

Encoder = Callable[[Tensor], dict[str, ImageTokens]]
"""Schedule -> codes, with latents if wanted, of pictures ``(n, 3, S, S)`` in [-1, 1]."""


def encode_documents(
    source: Source,
    writer: ShardWriter,
    *,
    encode: Encoder,
    device: torch.device | str = "cpu",
    num_processes: int = 0,
    batch_size: int = 256,
    on_shard: Callable[[int, RawShard | None], None] | None = None,
) -> dict[str, int]:
    """Encode what the folder does not hold yet.

    Args:
        source: of the documents.
        writer: of the folder; its manifest says how many documents a shard covers.
        encode: pictures to codes and latents, on ``device``.
        device: where pictures are shown and encoded.
        num_processes: worker processes that read the source; 0 reads in this one.
        batch_size: pictures encoded at once.
        on_shard: told of every shard that is done, with what it holds, or None if it was there.

    Returns:
        Cause -> number of documents that were skipped; also logged.
    """
    device = torch.device(device)
    size = writer.manifest.documents_per_shard
    num_shards = -(-len(source) // size)
    missing: list[int] = []
    for number in range(num_shards):
        if not writer.has(number):
            missing.append(number)
        elif on_shard:
            on_shard(number, None)
    skipped: Counter[str] = Counter()
    for number, shard in _read_ahead(source, missing, size, num_processes):
        images = _encode(source, shard, encode, device, batch_size)
        manifest = writer.manifest
        writer.write(
            number,
            documents=shard.documents,
            num_documents=shard.num_documents,
            images=images or {name: manifest.blank(name, 0) for name in manifest.schedules},
        )
        skipped.update(shard.skipped)
        if on_shard:
            on_shard(number, shard)
    for cause, number in sorted(skipped.items()):
        logger.warning("skipped %d documents: %s", number, cause)
    return dict(skipped)


def encoder_of(
    tokenizer: ImageTokenizer,
    device: torch.device,
    schedules: Sequence[str] = (SINGLE,),
    *,
    with_latents: bool = False,
) -> Encoder:
    """The tokenizer as a function from pixels to what shards keep, on a device."""
    model: Any = tokenizer
    model.to(device=device, memory_format=torch.channels_last)

    def encode(pixels: Tensor) -> dict[str, ImageTokens]:
        latents = tokenizer.encode(pixels.contiguous(memory_format=torch.channels_last)).latents
        assert latents is not None
        tokens = {name: tokenizer.to_tokens(latents, name) for name in schedules}
        kept = latents.half() if with_latents else None
        return {name: replace(found, latents=kept) for name, found in tokens.items()}

    return encode


def _encode(
    source: Source, shard: RawShard, encode: Encoder, device: torch.device, batch_size: int
) -> dict[str, ImageTokens] | None:
    """All codes of a shard, None without pictures; copied to the host once, at the end."""
    parts: list[dict[str, ImageTokens]] = []
    # Half precision in the convolutions only: the code lookup turns it off for itself.
    is_gpu = device.type == "cuda"
    for start in range(0, shard.num_images, batch_size):
        rows = slice(start, min(start + batch_size, shard.num_images))
        pixels = source.show(shard.pictures, rows, device).float() / 127.5 - 1.0
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16) if is_gpu else nullcontext():
            parts.append(encode(pixels))
    if not parts:
        return None
    return {
        name: ImageTokens.cat([part[name] for part in parts]).map(Tensor.cpu) for name in parts[0]
    }


def _read_ahead(
    source: Source, numbers: list[int], size: int, num_processes: int
) -> Iterator[tuple[int, RawShard]]:
    """Read shards in order, some ahead of the one asked for."""

    def bounds(number: int) -> tuple[int, int]:
        return number * size, min((number + 1) * size, len(source))

    if num_processes == 0:
        for number in numbers:
            yield number, source.read(*bounds(number))
        return
    # Spawned, not forked: a forked child of a process with threads or CUDA may hang.
    with ProcessPoolExecutor(
        min(num_processes, max(len(numbers), 1)),
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    ) as pool:
        waiting: deque[tuple[int, Future[RawShard]]] = deque()
        left = iter(numbers)
        while True:
            while len(waiting) < 2 * num_processes and (number := next(left, None)) is not None:
                waiting.append((number, pool.submit(source.read, *bounds(number))))
            if not waiting:
                return
            number, future = waiting.popleft()
            yield number, future.result()
