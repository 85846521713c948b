"""The oracle: a judge that knows the truth, to test protocols and to bound every other judge."""

from dataclasses import dataclass
from typing import ClassVar

from unimm.judges.judge import JudgeConfig, JudgeError, Reply
from unimm.judges.question import Question


@dataclass(frozen=True, kw_only=True)
class OracleConfig(JudgeConfig):
    """A judge that answers from the truth."""

    name: ClassVar[str] = "oracle"

    def build(self) -> "Oracle":
        """Make the judge."""
        return Oracle()


class Oracle:
    """Gives each question's ``truth``."""

    name = "oracle"
    concurrency = 1

    def ask(self, question: Question) -> Reply:
        """Answer with the truth.

        Raises:
            JudgeError: the question has none.
        """
        if question.truth is None:
            raise JudgeError("the oracle needs the truth, and this question has none")
        return Reply(answer=question.truth, text=str(question.truth))
