import pytest

from unimm.judges.answers import Choice, Score, UnreadableAnswer

VERDICT = Choice(("correct", "incorrect"))


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Correct", "correct"),
        ("incorrect.", "incorrect"),
        ("There is a red ball, as asked. Correct", "correct"),
        ("The ball is blue, not red.\n\n**Incorrect**", "incorrect"),
        ("All three apples are there.\nFinal answer: `Correct`", "correct"),
        ("The hat is missing. Therefore, the image is incorrect.", "incorrect"),
        ("<think>The shape may be off</think>\nVerdict: CORRECT!", "correct"),
        ("'Correct'", "correct"),
        ("\u201cIncorrect\u201d", "incorrect"),
    ],
)
def test_a_verdict_at_the_end_is_read(text, verdict):
    assert VERDICT.read(text) == verdict


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "I cannot tell.",
        "maybe",
        "The image is not correct.",  # the last word alone would say the opposite
        "It would be wrong to call this correct",
        "That is far from correct",
        "The colour is correct but the count is off.",
        "Incorrect. On the other hand the ball is red.",  # a verdict, then prose
        "Correct or incorrect",
        "Correct / Incorrect",
        "Correct\nIncorrect",
        "incorrectly drawn",
        "Is the image correct?  No",
        "The answer is neither correct nor incorrect",
        '{"verdict": "correct", "sure": 0.2}',
    ],
)
def test_what_is_no_verdict_is_never_one(text):
    with pytest.raises(UnreadableAnswer, match="wanted|contradict"):
        VERDICT.read(text)


@pytest.mark.parametrize(("text", "score"), [("[[7]]", 7), ("Good.\nRating: [[ 10 ]]", 10)])
def test_a_score_is_read(text, score):
    assert Score(0, 10).read(text) == score


@pytest.mark.parametrize(
    "text", ["7", "[[11]]", "[[-1]]", "[[7.5]]", "[[7]] or [[8]]", "[[seven]]", "[7]", ""]
)
def test_a_score_off_the_scale_is_none(text):
    with pytest.raises(UnreadableAnswer, match="score"):
        Score(0, 10).read(text)


def test_forms_that_make_no_sense():
    with pytest.raises(ValueError, match="two or more words"):
        Choice(("yes",))
    with pytest.raises(ValueError, match="lower case"):
        Choice(("Yes", "no"))
    with pytest.raises(ValueError, match="high must be above low"):
        Score(3, 3)
