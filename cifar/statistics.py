"""How sure a result over seeds is: Student's t intervals, tests between two points, and how many seeds would do.

Small numbers of seeds are the rule, so everything uses Student's t distribution (Student, Biometrika 6, 1908).
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

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
    """Two points compared: how, the difference of their means, the two-sided p value, and the seeds that would do.

    `num_seeds` is for each point and `POWER`, if the true difference and spread are those seen; None: over `MAX_SEEDS`.
    """

    kind: str  # "paired" or "Welch"
    difference: float
    p_value: float
    num_seeds: int | None

    @property
    def is_clear(self) -> bool:
        """Return whether chance alone would seldom (in less than 5 % of cases) give such a difference."""
        return self.p_value < 1 - CONFIDENCE


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
    return spread if spread > ROUNDING * max(map(abs, values)) else 0.0


def compare(first: dict[int, float], second: dict[int, float]) -> Comparison | None:
    """Compare two points, each given as seed → value; None if there are too few values to say anything.

    With two or more seeds in common the differences seed by seed are tested (the paired t test), because a seed has
    the same split and the same first weights at both points; else the means are (Welch, Biometrika 34, 1947).
    """
    common = sorted(first.keys() & second.keys())
    if len(common) >= 2:
        differences = [first[seed] - second[seed] for seed in common]
        mean, spread, freedom = fmean(differences), stdev(differences), len(common) - 1.0
        error = spread / math.sqrt(len(common))
        kind, per_seed = "paired", spread
    elif min(len(first), len(second)) >= 2:
        parts = [variance(values) / len(values) for values in (first.values(), second.values())]
        mean, error = fmean(first.values()) - fmean(second.values()), math.sqrt(sum(parts))
        weights = [part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True)]
        freedom = sum(parts) ** 2 / sum(weights) if error else 1.0
        kind, per_seed = "Welch", math.sqrt(sum(variance(values) for values in (first.values(), second.values())))
    else:
        return None
    return Comparison(kind, mean, two_sided(mean, error, freedom), seeds_needed(mean, per_seed, kind == "paired"))


def two_sided(mean: float, error: float, freedom: float) -> float:
    """Return the probability of a difference at least this far from 0 if the true one is 0; `error` is standard."""
    from scipy.special import stdtr

    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(freedom, -abs(mean) / error))


def seeds_needed(difference: float, spread: float, is_paired: bool) -> int | None:
    """Return the least number of seeds at each point with which a t test finds the difference with `POWER`.

    `spread` is the standard deviation of one seed's difference. The power comes from the noncentral t distribution
    (Cohen, Statistical Power Analysis, 1988, chapter 2). None: more than `MAX_SEEDS`.
    """
    from scipy.special import nctdtr, stdtrit

    if difference == 0:
        return None
    if spread == 0:
        return 2
    for count in range(2, MAX_SEEDS + 1):
        freedom = count - 1 if is_paired else 2 * count - 2
        limit = float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
        shift = abs(difference) / spread * math.sqrt(count)
        if 1 - nctdtr(freedom, shift, limit) + nctdtr(freedom, shift, -limit) >= POWER:
            return count
    return None
