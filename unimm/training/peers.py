"""Notices the death of a rank at once, tells all others which one it was, and ends them.

Every rank holds a connection to the next one. The kernel closes it when that process dies, however
it dies, and its keep-alive probes notice a machine that is gone; a process that is merely busy
stays connected. Without this, the others wait in a collective for many minutes and name nobody.
"""

import contextlib
import itertools
import logging
import os
import socket
import sys
import threading
from datetime import timedelta
from types import TracebackType

import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from unimm.distributed import barrier, rank, world_size

logger = logging.getLogger(__name__)

EXIT_CODE = 75  # the system's EX_TEMPFAIL: start the run again
_INTERVAL = 1.0  # seconds between two looks
_VERDICT = "verdict"
_PATIENCE = 30.0  # seconds in which a death on another machine is noticed
_STORE_TIMEOUT = timedelta(seconds=30)


class Peers:
    """Ties the ranks together while a run lasts; used as a context, does nothing for one rank."""

    _numbers = itertools.count()  # the same on all ranks: runs of one process must not mix

    def __init__(self) -> None:
        self._is_over = threading.Event()
        self._has_verdict = threading.Event()
        self._verdict = ""

    def __enter__(self) -> "Peers":
        self._is_alone = world_size() == 1
        if not self._is_alone:
            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            # A connection of its own: the run's may be held by a collective that waits.
            store = TCPStore(address, port, is_master=False, timeout=_STORE_TIMEOUT)
            self._store = PrefixStore(f"unimm/peers/{next(self._numbers)}", store)
            self._before, self._next = _connect_ring(self._store, address, port)
            # A worker process that outlived this one would keep its connections open.
            os.register_at_fork(after_in_child=self._hang_up)
            self._thread = threading.Thread(target=self._watch, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._is_alone:
            return
        # An error of a collective is another rank's doing: let the watch find out whose.
        is_told = _is_collective(error) and self._has_verdict.wait(_PATIENCE)
        if error is not None and not isinstance(error, SystemExit) and not is_told:
            self._judge(f"{_name(rank())} ended with {type(error).__name__}: {error}")
        self._is_over.set()
        self._thread.join()
        with contextlib.suppress(OSError):  # nobody may be left to hear it
            self._before.sendall(b".")  # farewell: this end is no death
        self._hang_up()

    def _hang_up(self) -> None:
        self._before.close()
        self._next.close()

    def _watch(self) -> None:
        is_watched = True
        while not self._is_over.is_set():
            if is_watched:
                is_watched = self._look()
            else:
                self._is_over.wait(_INTERVAL)
            try:
                is_judged = self._store.check([_VERDICT])
                verdict = self._store.get(_VERDICT).decode() if is_judged else ""
            except (dist.DistError, RuntimeError):
                verdict = self._verdict or (
                    "the process that keeps the ranks' store (MASTER_ADDR, rank 0 unless torchrun "
                    "keeps it) is gone"
                )
            if verdict:
                logger.critical(
                    "rank %d stops: %s. Start the run again to go on from its last checkpoint",
                    rank(),
                    verdict,
                )
                self._has_verdict.set()
                # The main thread's own error says more than a sudden end, but may never come.
                if not self._is_over.wait(2 * _INTERVAL):
                    _leave()
                return

    def _look(self) -> bool:
        """Look whether the next rank lives; give False when there is nothing more to see."""
        try:
            if self._next.recv(1):
                return False  # it said farewell
        except TimeoutError:
            return True
        except OSError:
            pass  # the probes found nobody, or the connection was reset
        self._judge(f"{_name((rank() + 1) % world_size(), self._store)} has died")
        return False

    def _judge(self, verdict: str) -> None:
        """Tell all ranks, unless another told them before."""
        self._verdict = self._verdict or verdict
        try:
            self._store.compare_set(_VERDICT, "", verdict)
        except (dist.DistError, RuntimeError):
            logger.critical("%s, and so has the ranks' store", verdict)


def _connect_ring(
    store: PrefixStore, address: str, port: int
) -> tuple[socket.socket, socket.socket]:
    """Meet the rank before, which watches this one, and the rank after, which this one watches."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, port))  # sends nothing; finds the interface to the others
        own = probe.getsockname()[0]
    with socket.create_server((own, 0)) as server:
        server.settimeout(_STORE_TIMEOUT.total_seconds())
        place = f"{own} {server.getsockname()[1]} {socket.gethostname()} {os.getpid()}"
        store.set(_key(rank()), place)
        host, number, *_ = store.get(_key((rank() + 1) % world_size())).decode().split()
        after = socket.create_connection((host, int(number)), _STORE_TIMEOUT.total_seconds())
        before, _ = server.accept()
    after.settimeout(_INTERVAL)
    after.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # of Linux
            after.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    barrier()
    return before, after


def _key(number: int) -> str:
    return f"rank/{number}"


def _name(number: int, store: PrefixStore | None = None) -> str:
    if store is None:
        return f"rank {number} on {socket.gethostname()} (process {os.getpid()})"
    try:
        *_, host, process = store.get(_key(number)).decode().split()
    except (dist.DistError, RuntimeError):
        return f"rank {number}"
    return f"rank {number} on {host} (process {process})"


def _is_collective(error: BaseException | None) -> bool:
    """Whether an error is what a collective gives when another rank is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def _leave() -> None:
    """End the process at once: its main thread hangs in a collective that nothing interrupts."""
    logging.shutdown()
    sys.stderr.flush()
    os._exit(EXIT_CODE)
