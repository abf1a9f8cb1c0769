"""Intervals, tests and numbers of seeds against scipy.stats, and against tables."""

import numpy as np
import pytest
from scipy import stats

from cifar.statistics import Interval, compare, interval, seeds_needed

NUM_CASES = 50


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_intervals_and_p_values_are_scipys(case: int) -> None:
    rng = np.random.default_rng(case)
    first, second = (rng.normal(mean, 0.02, rng.integers(2, 9)) for mean in (0.5, 0.51))
    found = interval([*first])
    assert found is not None
    assert found.half is not None
    low, high = stats.t.interval(0.95, len(first) - 1, first.mean(), stats.sem(first))
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-12)
    assert found.count == len(first)

    apart = compare(dict(enumerate(first)), {100 + seed: value for seed, value in enumerate(second)})
    assert apart is not None
    assert apart.kind == "Welch"
    assert apart.p_value == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue, rel=1e-9)
    assert apart.difference == pytest.approx(first.mean() - second.mean())

    paired = compare(dict(enumerate(first)), dict(enumerate(second)))
    num_common = min(len(first), len(second))
    assert paired is not None
    assert paired.kind == "paired"
    assert paired.p_value == pytest.approx(stats.ttest_rel(first[:num_common], second[:num_common]).pvalue, rel=1e-9)
    assert paired.is_clear == (paired.p_value < 0.05)


def test_few_values() -> None:
    assert interval([]) is None
    assert interval([0.5]) == Interval(1, 0.5, None)
    assert compare({0: 0.5}, {0: 0.4}) is None
    assert compare({}, {0: 0.4, 1: 0.5}) is None
    assert compare({0: 0.5, 1: 0.5}, {2: 0.4}) is None


def test_values_without_any_spread() -> None:
    same, other = {0: 0.5, 1: 0.5}, {0: 0.4, 1: 0.4}
    equal, clear = compare(same, dict(same)), compare(same, other)
    assert equal is not None
    assert clear is not None
    assert (equal.p_value, equal.num_seeds) == (1.0, None)
    assert (clear.p_value, clear.num_seeds) == (0.0, 2)
    assert interval([0.5, 0.5]) == Interval(2, 0.5, 0.0)


def test_intervals_overlap() -> None:
    narrow = Interval(3, 0.5, 0.01)
    assert narrow.overlaps(Interval(3, 0.515, 0.01))
    assert not narrow.overlaps(Interval(3, 0.53, 0.01))
    assert narrow.overlaps(Interval(1, 0.9, None))


@pytest.mark.parametrize(
    ("effect", "is_paired", "count"),
    # Cohen 1988, power 0.8 at 0.05 two-sided: his tables, and G*Power's manual for the paired test
    [(0.5, True, 34), (0.2, True, 199), (0.8, True, 15), (0.5, False, 64), (0.2, False, 394), (0.8, False, 26)],
)
def test_numbers_of_seeds_are_the_tables(effect: float, is_paired: bool, count: int) -> None:
    # for two samples the tables divide by one sample's deviation, which is that of a difference over √2
    assert seeds_needed(effect, 1 if is_paired else 2**0.5, is_paired) == count


def test_a_difference_that_is_too_small_for_any_number_of_seeds() -> None:
    assert seeds_needed(1e-4, 1, is_paired=True) is None
