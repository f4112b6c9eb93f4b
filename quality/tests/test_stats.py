"""The numbers of the tables."""

import math

import numpy as np
import pytest

from semproxy_quality import stats


def test_the_error_is_taken_over_texts_not_over_questions() -> None:
    apart = stats.clustered([(i, float(v)) for i, v in enumerate((0, 1, 1, 0, 1, 1))])
    assert apart.value == pytest.approx(4 / 6)
    assert apart.error == pytest.approx(np.std([0, 1, 1, 0, 1, 1], ddof=1) / math.sqrt(6))
    together = stats.clustered([(i // 3, float(v)) for i, v in enumerate((0, 0, 0, 1, 1, 1))])
    assert together.value == 0.5
    assert together.error == pytest.approx(0.5)  # two texts, not six answers


def test_one_text_has_no_error() -> None:
    assert math.isnan(stats.clustered([(0, 1.0), (0, 0.0)]).error)


def test_differences_are_of_the_same_texts() -> None:
    a = [{"text": 0, "nll": 1.0}, {"text": 1, "nll": 2.0}, {"text": 2, "nll": 9.0}]
    b = [{"text": 1, "nll": 1.9}, {"text": 0, "nll": 0.8}]
    assert stats.paired(a, b, "nll").value == pytest.approx(0.15)
    assert stats.paired(a, b, "nll").count == 2


def test_equal_values_share_their_rank() -> None:
    assert stats.ranks([3.0, 1.0, 3.0, 2.0]).tolist() == [2.5, 0.0, 2.5, 1.0]


@pytest.mark.parametrize(("y", "want"), [([1.0, 2.0, 4.0, 8.0], 1.0), ([4.0, 3.0, 2.0, 1.0], -1.0), ([1.0, 3.0, 2.0, 4.0], 0.8)])
def test_rank_correlation(y: list[float], want: float) -> None:
    assert stats.spearman([1.0, 2.0, 3.0, 4.0], y) == pytest.approx(want)


def test_what_does_not_vary_correlates_with_nothing() -> None:
    assert math.isnan(stats.spearman([1.0, 1.0], [0.0, 1.0]))


def test_lost_are_answers_that_the_full_cache_gives() -> None:
    rows = [
        {"case": 0, "right": False, "full_right": False},
        {"case": 0, "right": False, "full_right": True},
        {"case": 1, "right": True, "full_right": True},
    ]
    assert stats.lost(rows).value == 0.5
