"""Precision, recall and copies, against loops over points on a line."""

import pytest
import torch

from unimm.metrics.neighbours import authenticity, nearest_ratio, precision_recall


def by_loops(real: list[float], generated: list[float], k: int) -> tuple[float, float]:
    def inside(points: list[float], centres: list[float]) -> float:
        reach = [sorted(abs(c - other) for other in centres)[k] for c in centres]
        hits = [any(abs(p - c) <= r for c, r in zip(centres, reach, strict=True)) for p in points]
        return sum(hits) / len(hits)

    return inside(generated, real), inside(real, generated)


def points(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_precision_and_recall_of_points_on_a_line() -> None:
    real, generated = [0.0, 1.0, 2.5, 6.0, 7.0], [0.5, 1.5, 20.0, 21.0]
    for k in (1, 2, 3):
        got = precision_recall(points(*real), points(*generated), k=k)
        assert tuple(got) == pytest.approx(by_loops(real, generated, k))
    assert precision_recall(points(*real), points(*real), k=1) == (1.0, 1.0)


def test_a_collapsed_set_keeps_precision_and_loses_recall() -> None:
    real = torch.randn(600, 6, generator=torch.Generator().manual_seed(0))
    precision, recall = precision_recall(real[:300], real[300:] * 0.3)
    assert precision > 0.95 and recall < 0.6
    wide = precision_recall(real[:300], real[300:] * 3)
    assert wide.precision < 0.6 and wide.recall > 0.95


def test_copies_of_training_pictures_are_exposed() -> None:
    x = torch.randn(1200, 4, generator=torch.Generator().manual_seed(1))
    train, heldout, fresh = x.split(400)
    assert authenticity(train, fresh) == pytest.approx(0.5, abs=0.08)
    assert authenticity(train, train) == 0.0
    noise = torch.randn(train.shape, generator=torch.Generator().manual_seed(2))
    assert authenticity(train, train + 0.02 * noise) < 0.1
    assert nearest_ratio(train, heldout, fresh) == pytest.approx(1, abs=0.15)
    assert nearest_ratio(train, heldout, train + 0.02 * noise) < 0.2


def test_authenticity_of_points_on_a_line() -> None:
    # Own nearest distances are 1, 1 and 3. 1.1 lies .1 from 1: a copy; 9 lies 5 from 4, and 2.4
    # lies 1.4 from 1: not.
    assert authenticity(points(0, 1, 4), points(1.1, 9.0)) == 0.5
    assert authenticity(points(0, 1, 4), points(1.1, 2.4)) == 0.5


def test_what_has_no_neighbour_is_refused() -> None:
    with pytest.raises(ValueError, match="k = 3 neighbours among 3"):
        precision_recall(points(0, 1, 2), points(0, 1, 2))
    with pytest.raises(ValueError, match="at least two"):
        authenticity(points(0), points(1, 2))
    with pytest.raises(ValueError, match="held-out set itself"):
        nearest_ratio(points(0, 5), points(1, 2), points(1, 2))
