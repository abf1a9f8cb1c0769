"""How sure a result over seeds is: Student's t intervals, tests between two points, and how many seeds would do.

Small numbers of seeds are the rule, so everything uses Student's t distribution (Student, Biometrika 6, 1908).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

CONFIDENCE = 0.95
POWER = 0.8
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Interval:
    """The mean over `count` values and half the width of its 95 % confidence interval, None for a single value."""

    count: int
    mean: float
    half: float | None

    def overlaps(self, other: "Interval") -> bool:
        """Return whether the two intervals have a point in common; a single value has no interval and overlaps all."""
        if self.half is None or other.half is None:
            return True
        return abs(self.mean - other.mean) <= self.half + other.half


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


def interval(values: Sequence[float]) -> Interval | None:
    """Return the mean with its interval, mean ± t(0.975, n - 1) s / √n; None without values."""
    from scipy.special import stdtrit

    if not values:
        return None
    if len(values) == 1:
        return Interval(1, values[0], None)
    quantile = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
    return Interval(len(values), fmean(values), quantile * stdev(values) / math.sqrt(len(values)))


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
