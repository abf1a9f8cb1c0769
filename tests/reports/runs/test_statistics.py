"""Intervals, tests and numbers of seeds against scipy.stats, and against tables."""

from statistics import fmean

import numpy as np
import pytest
from scipy import optimize, special, stats

from cifar.reports.runs.statistics import Interval, compare, interval, seeds_needed

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
def test_p_values_and_intervals_are_scipys(case: int) -> None:
    rng = np.random.default_rng(case)
    first, second = (rng.normal(mean, 0.02, rng.integers(2, 9)) for mean in (0.5, 0.51))
    apart = compare(dict(enumerate(first)), {100 + seed: value for seed, value in enumerate(second)})
    assert apart is not None
    assert apart.kind == "Welch"
    theirs = stats.ttest_ind(first, second, equal_var=False)
    assert apart.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert apart.ends == pytest.approx([*theirs.confidence_interval()], rel=1e-9)
    assert apart.difference == pytest.approx(first.mean() - second.mean())

    paired = compare(dict(enumerate(first)), dict(enumerate(second)))
    num_common = min(len(first), len(second))
    assert paired is not None
    assert paired.kind == "paired"
    theirs = stats.ttest_rel(first[:num_common], second[:num_common])
    assert paired.p_value == pytest.approx(theirs.pvalue, rel=1e-9)
    assert paired.ends == pytest.approx([*theirs.confidence_interval()], rel=1e-9)
    assert paired.is_clear == (paired.p_value is not None and paired.p_value < 0.05)


def test_few_values() -> None:
    assert compare({0: 0.5}, {0: 0.4}) is None
    assert compare({}, {0: 0.4, 1: 0.5}) is None
    assert compare({0: 0.5, 1: 0.5}, {2: 0.4}) is None


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ({0: 0.5, 1: 0.75}, {0: 0.25, 1: 0.5}, "paired"),
        ({0: 0.4, 1: 0.3}, {0: 0.3, 1: 0.2}, "paired"),  # 0.1 but for rounding
        ({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.25, 1: 0.25, 2: 0.25}, "paired"),
        ({0: 0.5, 1: 0.5}, {2: 0.4, 3: 0.4}, "Welch"),
    ],
)
def test_without_spread_nothing_is_certain(first: dict[int, float], second: dict[int, float], kind: str) -> None:
    found = compare(first, second)
    assert found is not None
    assert (found.kind, found.p_value, found.ends, found.is_clear, found.num_seeds) == (kind, None, None, False, None)
    assert found.difference == pytest.approx(first[0] - next(iter(second.values())))


def test_one_point_without_spread_is_a_constant_to_the_other() -> None:
    found = compare({0: 0.5, 1: 0.5, 2: 0.5}, {3: 0.4, 4: 0.41, 5: 0.42})
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_1samp([0.4, 0.41, 0.42], 0.5).pvalue, rel=1e-9)


def test_equal_points_differ_by_nothing() -> None:
    found = compare({0: 0.5, 1: 0.6}, {0: 0.6, 1: 0.5})
    assert found is not None
    assert (found.difference, found.p_value, found.num_seeds) == (0.0, 1.0, None)


def test_only_common_seeds_enter_a_paired_comparison() -> None:
    found = compare({0: 0.50, 1: 0.51, 2: 0.90, 3: 0.90}, {0: 0.60, 1: 0.611})
    assert found is not None
    assert (found.kind, found.counts) == ("paired", (2, 2))
    assert found.difference == pytest.approx(-0.1005)
    assert found.p_value == pytest.approx(stats.ttest_rel([0.50, 0.51], [0.60, 0.611]).pvalue)


@pytest.mark.parametrize(
    ("effect", "variances", "count"),
    # Cohen 1988, power 0.8 at 0.05 two-sided: his tables, and G*Power's manual for the paired test
    [
        (0.5, [1], 34), (0.2, [1], 199), (0.8, [1], 15), (0.5, [1, 1], 64), (0.2, [1, 1], 394), (0.8, [1, 1], 26),
    ],
)  # fmt: skip
def test_numbers_of_seeds_are_the_tables(effect: float, variances: list[float], count: int) -> None:
    assert seeds_needed(effect, variances) == count


@pytest.mark.parametrize("case", range(20))
def test_numbers_of_seeds_are_those_of_a_search_one_by_one(case: int) -> None:
    rng = np.random.default_rng(case)
    first = dict(enumerate(rng.normal(0.5, 0.02, 4)))
    second = {10 + seed: value for seed, value in enumerate(rng.normal(0.53, rng.choice([0.001, 0.02, 0.1]), 5))}
    variances = [np.var([*values.values()], ddof=1) for values in (first, second)]
    effect = abs(np.mean([*first.values()]) - np.mean([*second.values()]))
    for count in range(2, 1001):
        error = np.sqrt(sum(variances) / count)
        freedom = sum(variances) ** 2 / sum(variance**2 / (count - 1) for variance in variances)
        if stats.nct.sf(stats.t.ppf(0.975, freedom), freedom, effect / error) >= 0.8:
            break
    else:
        count = 0
    found = compare(first, second)
    assert found is not None
    is_enough = found.is_clear or count > 4 or count == 0
    assert found.num_seeds == ((count or None) if is_enough else 5)


def test_a_difference_that_was_not_found_needs_more_seeds_than_there_are() -> None:
    # two seeds beside a hundred leave Welch's test hardly more than one degree of freedom; two beside two have two
    first, second = {0: 0.5, 1: 0.52}, {2 + seed: 0.41 + (0.0141 if seed % 2 else -0.0141) for seed in range(100)}
    found = compare(first, second)
    assert found is not None
    assert not found.is_clear
    assert seeds_needed(found.difference, found.variances) == 2
    assert found.num_seeds == 3


def test_rounding_is_no_difference() -> None:
    found = compare({0: 0.1 + 0.2, 1: 0.4}, {0: 0.3, 1: 0.4})
    assert found is not None
    assert (found.difference, found.p_value) == (0.0, None)


@pytest.mark.parametrize("effect", [20, 1e3, 1e6])
def test_a_difference_that_is_huge_needs_two_seeds(effect: float) -> None:
    assert seeds_needed(effect, [1.0]) == seeds_needed(effect, [1.0, 1.0]) == 2
    assert seeds_needed(8, [1.0]) == 3


def test_a_difference_that_is_too_small_for_any_number_of_seeds() -> None:
    assert seeds_needed(1e-4, [1]) is None


def test_a_thousand_seeds_are_the_most_that_are_named() -> None:
    def power(effect: float, count: int) -> float:
        limit = stats.t.ppf(0.975, count - 1)
        return float(stats.nct.sf(limit, count - 1, effect * np.sqrt(count)))

    def effect_for(count: int) -> float:
        return float(optimize.brentq(lambda effect: power(effect, count) - 0.8, 0.05, 0.5))

    for count in (997, 999, 1000):
        assert seeds_needed(effect_for(count) * (1 + 1e-6), [1.0]) == count
    assert seeds_needed(effect_for(1001) * (1 + 1e-6), [1.0]) is None


def test_a_difference_has_the_sign_of_the_first_point() -> None:
    first, second = {0: 0.5, 1: 0.52, 2: 0.53}, {0: 0.6, 1: 0.61, 2: 0.64}
    for other in (second, {seed + 10: value for seed, value in second.items()}):
        ahead, behind = compare(other, first), compare(first, other)
        assert ahead is not None
        assert behind is not None
        assert ahead.difference == -behind.difference == pytest.approx(0.1)
        assert ahead.p_value == behind.p_value
        assert ahead.num_seeds == behind.num_seeds
