import numpy as np
import pytest

from unimm.evaluation.intervals import bootstrap_rate


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        right = rng.binomial(1, 0.7, size=120)
        rate = bootstrap_rate(right.tolist(), [1] * 120, num_draws=400, seed=trial)
        hits += rate.low <= 0.7 <= rate.high
    assert 180 <= hits <= 199


def test_items_of_one_unit_do_not_narrow_the_interval() -> None:
    right = [0, 1] * 20
    one = bootstrap_rate(right, [1] * 40)
    copies = bootstrap_rate([10 * x for x in right], [10] * 40)
    assert copies.high - copies.low == pytest.approx(one.high - one.low)
    assert copies.total == 400 and copies.units == 40


def test_nothing_to_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match="empty"):
        bootstrap_rate([0], [0])
