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

from unimm.data.raw import CAUSES
from unimm.data.shards import ShardWriter
from unimm.data.sources import RawShard, Source
from unimm.document import ImageTokens
from unimm.tokenizer.image import ImageTokenizer
from unimm.tokenizer.schedules import SINGLE

logger = logging.getLogger(__name__)

_HOPELESS = 1000  # documents in a row, none of which can be used

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
    part: tuple[int, int] = (0, 1),
    on_shard: Callable[[int, RawShard | None], None] | None = None,
) -> int:
    """Encode what the folder does not hold yet.

    Args:
        source: of the documents.
        writer: of the folder; its manifest says how many documents a shard covers.
        encode: pictures to codes and latents, on ``device``.
        device: where pictures are shown and encoded.
        num_processes: worker processes that read the source; 0 reads in this one.
        batch_size: pictures encoded at once.
        part: ``(k, n)`` encodes every n-th shard from the k-th on; n processes, one a device, so
            share a folder.
        on_shard: told of every shard that is done, with what it holds, or None if it was there.

    What cannot be used is skipped, logged by cause with one place each, and counted in the index.

    Returns:
        Number of shards that other parts have still to write.

    Raises:
        ValueError: a thousand documents in a row cannot be used, or none at all.
    """
    device = torch.device(device)
    size, total = writer.manifest.documents_per_shard, len(source)
    num_shards = -(-total // size)
    missing: list[int] = []
    for number in range(part[0], num_shards, part[1]):
        if not writer.has(number, num_read=min(size, total - number * size)):
            missing.append(number)
        elif on_shard:
            on_shard(number, None)
    tally = _Tally()
    for number, shard in _read_ahead(source, missing, size, num_processes):
        tally.add(shard)
        images = _encode(source, shard, encode, device, batch_size)
        manifest = writer.manifest
        writer.write(
            number,
            documents=shard.documents,
            num_documents=shard.num_documents,
            images=images or {name: manifest.blank(name, 0) for name in manifest.schedules},
            skipped=shard.skipped,
            dropped=shard.dropped,
        )
        if on_shard:
            on_shard(number, shard)
    tally.check_any()
    left = writer.finish(num_shards)
    for cause, number in sorted(tally.skipped.items()):
        logger.warning("skipped %d documents: %s", number, cause)
    for cause, number in sorted(tally.dropped.items()):
        logger.warning("left out %d pictures of documents: %s", number, cause)
    return len(left)


class _Tally:
    """Counts of what could not be used, and when to give up."""

    def __init__(self) -> None:
        self.skipped: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._places: dict[str, str] = {}
        self._num_good = self._num_in_a_row = 0

    def add(self, shard: RawShard) -> None:
        """Count a shard.

        Raises:
            ValueError: too many documents in a row cannot be used.
        """
        for cause, place in shard.examples.items():
            if cause not in self._places:
                self._places[cause] = place
                logger.warning("%s: %s", place, CAUSES[cause])
        self.skipped.update(shard.skipped)
        self.dropped.update(shard.dropped)
        self._num_good += shard.num_documents
        num_skipped = sum(shard.skipped.values())
        self._num_in_a_row = 0 if shard.num_documents else self._num_in_a_row + num_skipped
        if self._num_in_a_row >= _HOPELESS:
            raise self._error(f"{self._num_in_a_row} documents in a row cannot be used")

    def check_any(self) -> None:
        """Refuse to end with nothing.

        Raises:
            ValueError: documents were read, and none can be used.
        """
        if self.skipped and not self._num_good:
            raise self._error(f"none of the {self.skipped.total()} documents can be used")

    def _error(self, what: str) -> ValueError:
        causes = "; ".join(
            f"{count} x {cause} ({CAUSES[cause]}), first {self._places.get(cause, 'unknown')}"
            for cause, count in self.skipped.most_common()
        )
        return ValueError(f"{what}: {causes}")


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
        initializer=_start_worker,
        initargs=(source,),
    ) as pool:
        waiting: deque[tuple[int, Future[RawShard]]] = deque()
        left = iter(numbers)
        while True:
            while len(waiting) < 2 * num_processes and (number := next(left, None)) is not None:
                waiting.append((number, pool.submit(_read_in_worker, *bounds(number))))
            if not waiting:
                return
            number, future = waiting.popleft()
            yield number, future.result()


_source_of_worker: Source | None = None  # in a worker process, sent once


def _start_worker(source: Source) -> None:
    global _source_of_worker
    torch.set_num_threads(1)
    _source_of_worker = source


def _read_in_worker(start: int, stop: int) -> RawShard:
    assert _source_of_worker is not None
    return _source_of_worker.read(start, stop)
