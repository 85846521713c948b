"""Pairs are judged in both orders: a judge that likes a place wins nothing."""

from collections import Counter

import pytest
from PIL import Image

from unimm.judges.drawbench import INSTRUCTION, faithfulness_query
from unimm.judges.judge import Failure, Reply
from unimm.judges.oracle import OracleConfig
from unimm.judges.pairwise import pair_verdict, preference_queries

OURS, THEIRS = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")


def test_both_orders_show_the_same_pictures_swapped():
    straight, swapped = preference_queries("7", "a red square", OURS, THEIRS)
    pictures = [[x for x in q.parts if isinstance(x, Image.Image)] for q in (straight, swapped)]
    assert pictures == [[OURS, THEIRS], [THEIRS, OURS]]
    words = [[x for x in q.parts if isinstance(x, str)] for q in (straight, swapped)]
    assert words[0] == words[1] and "a red square" in words[0][0]
    assert straight.key() != swapped.key() and straight.name != swapped.name


@pytest.mark.parametrize("truth", ["first", "second", "tie"])
def test_the_oracle_wins_in_both_orders(truth):
    judge = OracleConfig().build()
    pair = preference_queries("7", "a red square", OURS, THEIRS, truth=truth)
    verdict = pair_verdict(*(judge.ask(query) for query in pair))
    assert verdict.winner == truth and not verdict.is_contradiction
    places = 0 if truth == "tie" else 1  # a fair judge takes each place once
    assert (verdict.num_first, verdict.num_second) == (places, places)


@pytest.mark.parametrize(
    ("straight", "swapped", "winner", "is_contradiction"),
    [
        ("first", "second", "first", False),
        ("second", "first", "second", False),
        ("tie", "tie", "tie", False),
        ("first", "first", "tie", True),  # the place won, not the picture
        ("second", "second", "tie", True),
        ("first", "tie", "tie", True),
        ("tie", "first", "tie", True),
    ],
)
def test_a_win_holds_in_both_orders(straight, swapped, winner, is_contradiction):
    verdict = pair_verdict(Reply(answer=straight), Reply(answer=swapped))
    assert (verdict.winner, verdict.is_contradiction) == (winner, is_contradiction)
    counts = Counter((straight, swapped))
    assert (verdict.num_first, verdict.num_second) == (counts["first"], counts["second"])


@pytest.mark.parametrize("failed", [0, 1])
def test_half_a_pair_is_a_failure(failed):
    replies = [Reply(answer="first"), Reply(answer="first")]
    replies[failed] = Reply(failure=Failure("timeout", "no reply"))
    verdict = pair_verdict(*replies)
    assert verdict.winner is None and verdict.failure == Failure("timeout", "no reply")
    assert (verdict.num_first, verdict.num_second) == (0, 0)


def test_the_protocol_of_dalle3_is_asked_for():
    query = faithfulness_query("1", "Rbefraigerator", OURS)
    assert query.parts == (OURS, "Caption: Rbefraigerator")
    for promise in ("Misspelled", "Counts", "Do not nitpick", "fewer than 50 words", "must end"):
        assert promise in INSTRUCTION
