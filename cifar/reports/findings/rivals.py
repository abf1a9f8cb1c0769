"""Every point compared with the best one: plain p values, and beside them those corrected for the number of points."""

from collections.abc import Sequence
from dataclasses import dataclass

from cifar.reports.runs.results import Point, Results
from cifar.reports.runs.statistics import CONFIDENCE, Comparison, compare, holm


@dataclass(frozen=True)
class Rival:
    """A point with a result, and how it compares with the best; `corrected` is its p value by Holm's method.

    `comparison` is None, where one of the two has too few seeds, and for the best itself.
    """

    point: Point
    comparison: Comparison | None
    corrected: float | None

    @property
    def is_clear(self) -> bool:
        """Return whether it is told apart from the best, also after the correction."""
        return self.corrected is not None and self.corrected < 1 - CONFIDENCE

    @property
    def is_ahead(self) -> bool:
        """Return whether it is clearly better than the best over the seeds that both have."""
        return self.is_clear and self.comparison is not None and self.comparison.difference < 0


def rivals(results: Results) -> list[Rival]:
    """Return the points with a result in their ranking, compared with the first of them."""
    ranked = [point for point in results.points if point.mean(results.score_key) is not None]
    if not ranked:
        return []
    scores = ranked[0].over_seeds(results.score_key)
    found = [compare(scores, point.over_seeds(results.score_key)) for point in ranked[1:]]
    plain = [comparison.p_value for comparison in found if comparison and comparison.p_value is not None]
    corrected = iter(holm(plain))
    others = [
        Rival(point, comparison, next(corrected) if comparison and comparison.p_value is not None else None)
        for point, comparison in zip(ranked[1:], found, strict=True)
    ]
    return [Rival(ranked[0], None, None), *others]


def num_compared(others: Sequence[Rival]) -> int:
    """Return how many p values there are, for which they are corrected."""
    return sum(rival.corrected is not None for rival in others)
