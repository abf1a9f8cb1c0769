"""Intervals, tests and numbers of seeds against scipy.stats, and against tables."""

from statistics import fmean

import numpy as np
import pytest
from scipy import special, stats

from cifar.statistics import Interval, compare, interval, seeds_needed

NUM_CASES = 50


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_intervals_are_students_on_the_logit_scale(case: int) -> None:
    rng = np.random.default_rng(case)
    values = rng.beta(2, 2 * rng.uniform(0.01, 20), rng.integers(3, 9))
    found = interval([*values])
    assert found is not None
    mean = values.mean()
    centre, error = special.logit(mean), stats.sem(values) / (mean * (1 - mean))
    ends = special.expit(stats.t.interval(0.95, len(values) - 1, centre, error))
    assert (found.low, found.high) == pytest.approx(tuple(ends), rel=1e-12)
    assert found.values == tuple(values)
    assert found.mean == pytest.approx(mean)
    assert 0 <= ends[0] <= mean <= ends[1] <= 1


def test_a_narrow_interval_is_students_own() -> None:
    values = [0.9379, 0.9380, 0.9381, 0.9383]
    found = interval(values)
    assert found is not None
    assert (found.low, found.high) == pytest.approx(
        stats.t.interval(0.95, 3, np.mean(values), stats.sem(values)), abs=1e-6
    )


@pytest.mark.parametrize(
    "values", [[0.5], [0.5, 0.6], [0.5, 0.5], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.1 + 0.2, 0.3, 0.3]]
)
def test_fewer_than_three_values_and_values_without_spread_have_no_interval(values: list[float]) -> None:
    assert interval(values) == Interval((*values,), fmean(values), None, None)


def test_no_values_have_no_mean() -> None:
    assert interval([]) is None


@pytest.mark.parametrize("case", range(NUM_CASES))
def test_p_values_are_scipys(case: int) -> None:
    rng = np.random.default_rng(case)
    first, second = (rng.normal(mean, 0.02, rng.integers(2, 9)) for mean in (0.5, 0.51))
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
