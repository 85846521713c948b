"""Says which rank, in which step and phase, the others wait for; ends the run instead of hanging.

Every rank goes through the same phases in the same order, so the number of phases entered so far
compares ranks. A thread publishes it in the store that the ranks met in. A rank that has waited
longer than the limit reads the others' numbers: those behind it are the ones it waits for.
"""

import faulthandler
import json
import logging
import os
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch.distributed as dist

from unimm.distributed import rank, world_size

logger = logging.getLogger(__name__)

EXIT_CODE = 75  # the system's EX_TEMPFAIL: start the run again
_STORE_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a rank is.

    Attributes:
        number: phases entered so far, the same sequence on every rank.
        step: optimizer step, from 0.
        phase: what is being done.
        host: machine and process.
    """

    number: int
    step: int
    phase: str
    host: str

    def __str__(self) -> str:
        return f"step {self.step}, phase {self.phase!r} on {self.host}"


class Watchdog:
    """Watches that no rank keeps the others waiting; used as a context around the loop.

    Args:
        limit: seconds in one phase after which a rank looks for the ones it waits for; 0 watches
            nothing. It must be above the longest honest phase, the first rank drawing samples for
            one, and below the time-out of the collectives (ten minutes with NCCL).
    """

    def __init__(self, limit: float) -> None:
        self._limit, self._interval = limit, min(limit / 5, 10.0)
        self._host = f"{socket.gethostname()} (process {os.getpid()})"
        self._place = Place(number=0, step=0, phase="start", host=self._host)
        self._since = time.monotonic()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, step: int, phase: str) -> None:
        """Say that this rank begins a phase; every rank must do so in the same order."""
        self._since = time.monotonic()
        number = self._place.number + 1
        self._place = Place(number=number, step=step, phase=phase, host=self._host)

    def __enter__(self) -> "Watchdog":
        if self._limit > 0 and world_size() > 1:
            # A connection of its own: the run's may be held by a collective that waits.
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                is_master=False,
                timeout=_STORE_TIMEOUT,
            )
            dist.barrier()  # nobody may look for a place that was never published
            self._publish(store)
            dist.barrier()
            self._since = time.monotonic()
            self._thread = threading.Thread(target=self._watch, args=(store,), daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, store: Any) -> None:
        told = -1
        while not self._is_over.wait(self._interval):
            try:
                self._publish(store)
                if time.monotonic() - self._since > self._limit:
                    told = self._judge(store, told)
            except (dist.DistError, RuntimeError) as error:
                logger.warning("rank %d cannot reach the ranks' store: %s", rank(), error)
                if time.monotonic() - self._since > self._limit:
                    _leave(
                        f"rank {rank()} waits in {self._place}, and the machine that keeps the "
                        "ranks' store (MASTER_ADDR) does not answer"
                    )

    def _judge(self, store: Any, told: int) -> int:
        """End this rank if it waits for others; print the stack if others wait for it."""
        own, waited = self._place, time.monotonic() - self._since
        raw = store.multi_get([_key(number) for number in range(world_size())])
        places = {number: Place(**json.loads(text)) for number, text in enumerate(raw)}
        behind = {number: place for number, place in places.items() if place.number < own.number}
        if behind and waited < self._limit + 3 * self._interval:
            return told  # first let those behind say where they stand
        if behind:
            found = "; ".join(f"rank {number} in {place}" for number, place in behind.items())
            _leave(f"rank {rank()} has waited {waited:.0f} s in {own} for: {found}")
        if all(place.number == own.number for place in places.values()):
            _leave(
                f"all ranks have been {waited:.0f} s in {own}: a collective does not return (look "
                "at the network), or guard.hang_seconds is too short"
            )
        if waited > 2 * self._limit:
            _leave(f"rank {rank()} has kept others waiting {waited:.0f} s in {own}")
        if told != own.number:
            logger.error("rank %d keeps others waiting in %s; its stack follows", rank(), own)
            faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
        return own.number

    def _publish(self, store: Any) -> None:
        store.set(_key(rank()), json.dumps(asdict(self._place)))


def _key(number: int) -> str:
    return f"unimm/place/{number}"


def _leave(message: str) -> None:
    """End the process at once: its main thread hangs in a collective that nothing interrupts."""
    logger.critical("%s. Stopping; start the run again to go on from its last checkpoint", message)
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
