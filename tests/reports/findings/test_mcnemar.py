"""McNemar's test against scipy's binomial one, and what is compared."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from cifar.base.errors import UserError
from cifar.reports.findings.mcnemar import Disagreement, disagreement
from cifar.tracking.answers import Stored


def answers(predicted: list[int], confidence: list[float] | None = None) -> Stored:
    """Return answers for images that are all of class 0."""
    sure = np.array(confidence or [0.5] * len(predicted), dtype=np.float32)
    labels = np.zeros(len(predicted), dtype=np.int64)
    return Stored(labels, np.array(predicted), sure, sure, sure, ["a", "b", "c"], "one set")


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 6), (1, 8), (5, 5), (30, 55), (700, 810), (0, 2000)])
def test_p_values_are_those_of_the_binomial_distribution(first: int, second: int) -> None:
    found = Disagreement(10_000, [*range(first)], [*range(second)], 0)
    exact = binomtest(first, first + second, 0.5).pvalue
    assert found.p_value == pytest.approx(exact, rel=1e-9)
    middle = exact if first == second else exact - binom.pmf(min(first, second), first + second, 0.5)
    assert found.mid_p_value == pytest.approx(middle, rel=1e-6, abs=1e-300)
    assert found.mid_p_value <= found.p_value
    assert found.is_clear == (exact < 0.05)


def test_runs_that_are_right_on_the_same_images_differ_by_nothing() -> None:
    found = disagreement(answers([0, 1, 0]), answers([0, 2, 0]), ("a", "b"))
    assert (found.counts, found.p_value, found.mid_p_value, found.difference) == ((0, 0), 1, 1, 0)
    assert found.both_wrong == 1


def test_who_is_right_where_the_surest_mistakes_first() -> None:
    first = answers([0, 0, 1, 0, 1], [0.9, 0.9, 0.4, 0.9, 0.8])
    second = answers([1, 1, 0, 0, 0], [0.3, 0.7, 0.9, 0.9, 0.9])
    found = disagreement(first, second, ("a", "b"))
    assert (found.first, found.second, found.both_wrong, found.total) == ([1, 0], [4, 2], 0, 5)
    mirrored = disagreement(second, first, ("b", "a"))
    assert (mirrored.first, mirrored.second) == (found.second, found.first)


def test_other_images_are_refused() -> None:
    with pytest.raises(UserError, match="a and b were not tested on the same images, though there are 2 each"):
        disagreement(answers([0, 1]), replace(answers([0, 1]), test_set="another"), ("a", "b"))
    with pytest.raises(UserError, match="2 and 3"):
        disagreement(answers([0, 1]), replace(answers([0, 1, 1]), test_set="another"), ("a", "b"))


def test_the_interval_of_the_difference_is_the_papers() -> None:
    low, high = Disagreement(44, [*range(2)], [*range(8)], 0).interval  # two and eight of 44
    first, second, size = 3 / 46, 9 / 46, 46
    half = 1.959963984540054 * ((first + second - (first - second) ** 2) / size) ** 0.5
    assert (low, high) == pytest.approx((first - second - half, first - second + half), rel=1e-12)
