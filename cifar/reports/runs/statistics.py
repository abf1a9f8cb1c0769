"""How sure a result over seeds is: Student's t intervals, tests between two points, and how many seeds would do.

Small numbers of seeds are the rule, so everything uses Student's t distribution (Student, Biometrika 6, 1908).
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

CONFIDENCE = 0.95
POWER = 0.8
MAX_SEEDS = 1000
MIN_SEEDS = 3  # for an interval: that of two values is as wide as all that is possible
ROUNDING = 1e-12  # of an accuracy: the least that images can differ by is far more


@dataclass(frozen=True)
class Interval:
    """The accuracies of some seeds as fractions, their mean, and the ends of its 95 % confidence interval.

    `low` and `high` are None for fewer than `MIN_SEEDS` values, and for values without any spread, which say nothing
    about chance.
    """

    values: tuple[float, ...]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Comparison:
    """Two points compared: how, over how many seeds of each, the difference of their means, and the two-sided p value.

    Paired, both counts are that of the common seeds, and only they enter. `variances` are those whose sum is the
    variance of one seed's difference. `p_value` is None without any spread: what never varied says nothing of chance.
    """

    kind: Literal["paired", "Welch"]
    counts: tuple[int, int]
    difference: float
    variances: tuple[float, ...]
    p_value: float | None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Return the ends of the difference's 95 % confidence interval; None without any spread."""
        from scipy.special import stdtrit

        if self.p_value is None:
            return None
        error, freedom = error_of_mean(self.variances, self.counts)
        half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
        return self.difference - half, self.difference + half

    @property
    def is_clear(self) -> bool:
        """Return whether chance alone would seldom (in less than 5 % of cases) give such a difference."""
        return self.p_value is not None and self.p_value < 1 - CONFIDENCE

    @property
    def num_seeds(self) -> int | None:
        """Return how many seeds of each would find the difference with `POWER`, if it and the spread are those seen.

        None: more than `MAX_SEEDS`, or it can't be told. Where those there are did not do, it is more than they are.
        """
        needed = seeds_needed(self.difference, self.variances)
        return needed if needed is None or self.is_clear else max(needed, min(self.counts) + 1)


def interval(accuracies: Sequence[float]) -> Interval | None:
    """Return the mean of accuracies, fractions, with its interval; None without values.

    It is Student's t interval of the mean's logit, the standard error by the delta method (Agresti, Categorical Data
    Analysis, 3rd ed., section 16.1), so that it stays within 0 and 1.
    """
    from scipy.special import expit, logit, stdtrit

    if not accuracies:
        return None
    count, mean = len(accuracies), fmean(accuracies)
    spread = spread_of(accuracies) if count >= MIN_SEEDS else 0.0
    slope = mean * (1 - mean)  # of the logistic function at the mean
    if spread == 0 or slope <= 0:
        return Interval((*accuracies,), mean, None, None)
    half = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * spread / math.sqrt(count) / slope
    low, high = (float(expit(logit(mean) + side)) for side in (-half, half))
    return Interval((*accuracies,), mean, low, high)


def spread_of(values: Collection[float]) -> float:
    """Return the standard deviation, exactly 0 where the values differ by no more than rounding."""
    spread = stdev(values)
    return spread if spread > ROUNDING else 0.0


def compare(first: dict[int, float], second: dict[int, float]) -> Comparison | None:
    """Compare two points, each given as seed → accuracy; None if there are too few values to say anything.

    With two or more seeds in common the differences seed by seed are tested (the paired t test), because a seed has
    the same split and the same first weights at both points; else the means are (Welch, Biometrika 34, 1947).
    """
    common = sorted(first.keys() & second.keys())
    if len(common) >= 2:
        differences = [first[seed] - second[seed] for seed in common]
        return make_comparison("paired", (len(common),) * 2, fmean(differences), (spread_of(differences) ** 2,))
    if min(len(first), len(second)) < 2:
        return None
    variances = (spread_of(first.values()) ** 2, spread_of(second.values()) ** 2)
    return make_comparison(
        "Welch", (len(first), len(second)), fmean(first.values()) - fmean(second.values()), variances
    )


def make_comparison(
    kind: Literal["paired", "Welch"], counts: tuple[int, int], mean: float, variances: tuple[float, ...]
) -> Comparison:
    """Return the comparison with its p value; a difference of no more than rounding is none."""
    mean = mean if abs(mean) > ROUNDING else 0.0
    if sum(variances) == 0:
        return Comparison(kind, counts, mean, variances, None)
    return Comparison(kind, counts, mean, variances, two_sided(mean, *error_of_mean(variances, counts)))


def error_of_mean(variances: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Return the standard error of a difference of means, and its degrees of freedom by Welch's formula."""
    parts = [variance / count for variance, count in zip(variances, counts, strict=False)]
    weights = [part**2 / (count - 1) for part, count in zip(parts, counts, strict=False)]
    return math.sqrt(sum(parts)), sum(parts) ** 2 / sum(weights)


def two_sided(mean: float, error: float, freedom: float) -> float:
    """Return the probability of a difference at least this far from 0 if the true one is 0; `error` is standard."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(mean) / error))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p values corrected for how many they are, in their order.

    With a probability of 95 % or more none of those that are below 0.05 then is a false alarm (Holm, Scandinavian
    Journal of Statistics 6, 1979).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for num_smaller, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - num_smaller) * p_values[place]))
        corrected[place] = largest
    return corrected


def seeds_needed(difference: float, variances: Sequence[float]) -> int | None:
    """Return the least number of seeds at each point with which a t test finds the difference with `POWER`.

    `variances` is that of the seeds' differences, or both points', if their seeds are not the same. None: more than
    `MAX_SEEDS`, or there is no difference or no spread.
    """
    if difference == 0 or sum(variances) == 0:
        return None
    counts = range(2, MAX_SEEDS + 1)
    place = bisect_left(counts, POWER, key=lambda count: power(difference, variances, count))
    return counts[place] if place < len(counts) else None


def power(difference: float, variances: Sequence[float], count: int) -> float:
    """Return the probability that a t test with `count` seeds at each point finds the difference, with its sign.

    It comes from the noncentral t distribution (Cohen, Statistical Power Analysis, 1988, chapter 2), the degrees of
    freedom from Welch's formula.
    """
    from scipy.special import nctdtr, stdtrit

    total = sum(variances)
    freedom = (count - 1) * total**2 / sum(variance**2 for variance in variances)
    limit = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
    shift = abs(difference) * math.sqrt(count / total)
    return 1 - float(nctdtr(freedom, shift, limit))
