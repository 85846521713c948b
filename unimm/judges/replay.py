"""A judge that repeats what another one once said: results without a network, or a second reading.

It answers from the file that the http judge's cache writes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from unimm.judges.answers import UnreadableAnswer
from unimm.judges.cache import ReplyCache
from unimm.judges.judge import Failure, JudgeConfig, JudgeError, Reply
from unimm.judges.query import Query


@dataclass(frozen=True, kw_only=True)
class ReplayConfig(JudgeConfig):
    """A judge that answers from a recording.

    Attributes:
        file: the recording: the ``cache`` of an http judge.
        recorded: which judge's replies, where the file holds several.
    """

    name: ClassVar[str] = "replay"

    file: str = "runs/judge_replies.jsonl"
    recorded: str = ""

    def build(self) -> "Replay":
        """Make the judge; the recording is read here."""
        return Replay(self)


class Replay:
    """Answers from a recording.

    Args:
        config: which.

    Raises:
        ValueError: there is no such file, it holds no replies, or those of several judges.
    """

    concurrency = 1

    def __init__(self, config: ReplayConfig) -> None:
        if not Path(config.file).is_file():
            raise ValueError(f"no recording at {config.file}; judge once with the http judge")
        self._cache = ReplyCache(config.file)
        judges = self._cache.judges()
        if config.recorded and config.recorded not in judges:
            raise ValueError(f"{config.file} holds no replies of {config.recorded!r}: {judges}")
        if not config.recorded and len(judges) != 1:
            raise ValueError(
                f"{config.file} holds replies of {len(judges)} judges, {judges}; "
                "name one with 'recorded'"
            )
        self._file = config.file
        self._judge = config.recorded or next(iter(judges))

    @property
    def name(self) -> str:
        """The judge that was recorded, so that its results are not taken for new ones."""
        return f"replay of {self._judge}"

    def ask(self, query: Query) -> Reply:
        """Repeat the recorded reply.

        Raises:
            JudgeError: this query was never asked.
        """
        key = query.key()
        text = self._cache.get(self._judge, key)
        if text is None:
            words = " / ".join(part for part in query.parts if isinstance(part, str))
            raise JudgeError(
                f"{self._file} holds no reply to {words[:120]!r} with these pictures "
                f"(key {key[:12]}): the words, the pictures or the form have changed since"
            )
        try:
            return Reply(answer=query.form.read(text), text=text, is_cached=True)
        except UnreadableAnswer as error:
            return Reply(failure=Failure("unreadable", str(error)), text=text, is_cached=True)
