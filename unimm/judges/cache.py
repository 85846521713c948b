"""Replies of judges on disk: a run that was stopped goes on, and no query is paid twice.

One JSON line a reply: ``judge``, ``query`` (its key), ``name``, ``text``. A cache is also a
recording: ``unimm.judges.replay`` answers from it.
"""

import json
import os
import threading
from pathlib import Path

from unimm.judges.query import Query

_START = b'{"judge": '


class ReplyCache:
    """Replies of a file, read once and appended to; safe among threads.

    Args:
        path: the file; made with its folder by the first reply.

    Raises:
        ValueError: a line is not what this class writes. Half a line, which a killed run leaves, is
            skipped and counted in ``num_torn``: its query is asked again.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        self._texts, self._is_torn, self.num_torn = _read(self.path)

    def get(self, judge: str, key: str) -> str | None:
        """The judge's words to a query, if it was asked before."""
        with self._lock:
            return self._texts.get((judge, key))

    def put(self, judge: str, query: Query, key: str, text: str) -> None:
        """Keep a reply: it is on disk when this returns."""
        entry = {"judge": judge, "query": key, "name": query.name, "text": text}
        with self._lock:
            self._texts[judge, key] = text
            self.path.parent.mkdir(parents=True, exist_ok=True)
            line = "\n" * self._is_torn + json.dumps(entry) + "\n"
            self._is_torn = False
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                # One write to a file opened for appending: two runs do not mix their lines.
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)

    def judges(self) -> dict[str, int]:
        """How many replies of which judge there are."""
        counts: dict[str, int] = {}
        with self._lock:
            for judge, _ in self._texts:
                counts[judge] = counts.get(judge, 0) + 1
        return counts


def _read(path: Path) -> tuple[dict[tuple[str, str], str], bool, int]:
    """Replies by judge and query, whether the last line is unfinished, how many halves lie."""
    if not path.is_file():
        return {}, False, 0
    lines = path.read_bytes().split(b"\n")
    texts: dict[tuple[str, str], str] = {}
    num_torn = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            texts[entry["judge"], entry["query"]] = str(entry["text"])
        except (ValueError, KeyError, TypeError) as error:
            if line[: len(_START)] != _START[: len(line)]:
                raise ValueError(
                    f"{path}, line {number} is no recorded reply ({error}); "
                    "name the file that a judge wrote, or move it away"
                ) from error
            num_torn += 1
    return texts, bool(lines[-1]), num_torn
