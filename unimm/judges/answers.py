"""The answers a query allows, and how a judge's words are read: strictly, or not at all.

A verdict counts only where it stands alone at the end. Guessing at prose ("the shape is correct,
but ...") would turn a judge's doubt into a score; what cannot be read is asked again, then counted.
"""

import re
from dataclasses import dataclass

Answer = str | int


class UnreadableAnswer(ValueError):
    """The judge's words hold no answer that the query allows."""


# What may stand before a verdict in its own sentence: "Therefore, the image is", "Final answer:".
_LEAD = re.compile(
    r"^(?:(?:therefore|thus|so|hence|overall|in conclusion)[,:]?\s+)?"
    r"(?:(?:(?:the|this)\s+(?:image|picture)\s+is)"
    r"|(?:(?:the|my)\s+)?(?:(?:final|overall)\s+)?"
    r"(?:answer|verdict|decision|conclusion|judgement|judgment)(?:\s+is)?\s*[:=-]?)?\s*$"
)
_SENTENCES = re.compile(r"[.!?]+(?=\s|$|[\"'*`_)\]}])|\n+")
_DECORATION = " \t\r\n\"'*_`#>()[]{}.,:;!-\u2018\u2019\u201c\u201d"
_SCORE = re.compile(r"\[\[\s*(-?\d+(?:\.\d+)?)\s*\]\]")


@dataclass(frozen=True)
class Choice:
    """One of a few words, such as ``correct`` or ``incorrect``.

    Attributes:
        words: in lower case.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.words) < 2 or any(word != word.strip().lower() for word in self.words):
            raise ValueError(f"a choice needs two or more words in lower case, got {self.words}")

    @property
    def rule(self) -> str:
        """What to tell a judge that did not keep to the form."""
        words = " or ".join(f"'{word}'" for word in self.words)
        return f"Answer with one word only: {words}."

    def read(self, text: str) -> Answer:
        """Find the verdict at the end of a reply.

        Raises:
            UnreadableAnswer: the last sentence is no verdict, or an earlier one contradicts it.
        """
        sentences = [x for part in _SENTENCES.split(text) if (x := part.strip(_DECORATION))]
        verdicts = [self._verdict(sentence.lower()) for sentence in sentences]
        last = verdicts[-1] if verdicts else None
        if last is None:
            raise UnreadableAnswer(f"no verdict at the end of {_short(text)}; wanted: {self.rule}")
        if set(verdicts) - {None, last}:
            raise UnreadableAnswer(f"two verdicts that contradict each other in {_short(text)}")
        return last

    def _verdict(self, sentence: str) -> str | None:
        """The word that a sentence says and nothing else."""
        for word in self.words:
            head, found, tail = sentence.rpartition(word)
            if found and not tail and _LEAD.match(head.strip(_DECORATION.replace(":", ""))):
                return word
        return None


@dataclass(frozen=True)
class Score:
    """A whole number in double brackets, ``[[7]]``.

    Attributes:
        low: the least.
        high: the most.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"scores go from {self.low} to {self.high}; high must be above low")

    @property
    def rule(self) -> str:
        """What to tell a judge that did not keep to the form."""
        return (
            f"Answer with a whole number from {self.low} to {self.high} in double brackets, "
            f"such as [[{self.high}]]."
        )

    def read(self, text: str) -> Answer:
        """Find the score of a reply.

        Raises:
            UnreadableAnswer: there is none, there are several, or it is not on the scale.
        """
        found = set(_SCORE.findall(text))
        if len(found) != 1:
            raise UnreadableAnswer(f"{len(found)} scores in {_short(text)}; wanted: {self.rule}")
        number = float(found.pop())
        if number != int(number) or not self.low <= number <= self.high:
            raise UnreadableAnswer(f"score {number:g} is none of {self.low} to {self.high}")
        return int(number)


AnswerForm = Choice | Score


def _short(text: str, length: int = 80) -> str:
    """The end of a reply, where the answer should stand."""
    text = " ".join(text.split())
    return repr(text if len(text) <= length else "..." + text[-length:])
