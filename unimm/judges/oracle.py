"""The oracle: a judge that knows the truth, to test protocols and to bound every other judge."""

from dataclasses import dataclass
from typing import ClassVar

from unimm.judges.judge import JudgeConfig, JudgeError, Reply
from unimm.judges.query import Query


@dataclass(frozen=True, kw_only=True)
class OracleConfig(JudgeConfig):
    """A judge that answers from the truth."""

    name: ClassVar[str] = "oracle"

    def build(self) -> "Oracle":
        """Make the judge."""
        return Oracle()


class Oracle:
    """Gives each query's ``truth``."""

    name = "oracle"
    concurrency = 1

    def ask(self, query: Query) -> Reply:
        """Answer with the truth.

        Raises:
            JudgeError: the query has none.
        """
        if query.truth is None:
            raise JudgeError(
                "the oracle needs the truth, and this query has none; "
                "let eval/score_images.py judge the pictures first, on this kind of device"
            )
        return Reply(answer=query.truth, text=str(query.truth))
