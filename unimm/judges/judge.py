"""What every judge is, and how many queries are put to it at once."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from unimm.judges.answers import Answer
from unimm.judges.query import PictureError, Query


class JudgeError(RuntimeError):
    """No query can be answered: wrong key, wrong address, nothing recorded. The run stops."""


class Failure(NamedTuple):
    """Why a query has no answer; ``kind`` is what is counted."""

    kind: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back for one query: an answer or a failure, never both.

    Attributes:
        answer: as the query's form read it.
        text: the judge's own words, if any came.
        failure: why there is no answer.
        is_cached: it was answered in an earlier run.
    """

    answer: Answer | None = None
    text: str | None = None
    failure: Failure | None = None
    is_cached: bool = False

    def __post_init__(self) -> None:
        assert (self.answer is None) != (self.failure is None)


class Judge(Protocol):
    """Answers queries about pictures."""

    @property
    def name(self) -> str:
        """The judge, with all that changes its answers; stands in summaries."""
        ...

    @property
    def concurrency(self) -> int:
        """Queries that it takes at once."""
        ...

    def ask(self, query: Query) -> Reply:
        """Answer, or say why not.

        Raises:
            JudgeError: no query can be answered.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Base of the judges' configurations."""

    name: ClassVar[str]

    def build(self) -> Judge:
        """Make the judge."""
        raise NotImplementedError


def ask_all(
    judge: Judge, queries: Sequence[Query], *, stop_after_failures: int = 20
) -> Iterator[tuple[int, Reply]]:
    """Put many queries to a judge, several at once.

    Args:
        judge: who answers.
        queries: in any number.
        stop_after_failures: so many failed queries one after the other mean that the judge is
            gone, not that a query is hard.

    Yields:
        The query's index and its reply, in the order in which replies come in.

    Raises:
        JudgeError: the judge cannot answer. What it answered before is kept by its cache.
    """
    pool = ThreadPoolExecutor(max_workers=judge.concurrency)
    try:
        waiting = {
            pool.submit(_ask_one, judge, query): index for index, query in enumerate(queries)
        }
        num_failed = 0
        for future in as_completed(waiting):
            reply = future.result()
            is_gone = reply.failure is not None and reply.failure.kind in GONE
            num_failed = num_failed + 1 if is_gone else 0
            if num_failed >= stop_after_failures:
                raise JudgeError(
                    f"the last {num_failed} queries failed, the latest with {reply.failure}; "
                    "what was answered is kept: run again when the judge is back"
                )
            yield waiting[future], reply
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


# Kinds of failures that say something of the judge and nothing of the query.
GONE = ("connection", "timeout", "rate limit", "server error")


def _ask_one(judge: Judge, query: Query) -> Reply:
    try:
        return judge.ask(query)
    except JudgeError as error:
        raise JudgeError(f"query {query.name}: {error}") from error
    except PictureError as error:
        return Reply(failure=Failure("picture", str(error)))
