"""Which of many swept keys a reader is shown: those between whose values most of the score's variance lies."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean, quantiles

from cifar.reports.findings.wording import short_names
from cifar.reports.runs.results import Point, Results, Value, show

MAX_FIGURE_KEYS = 8  # with curves, a heat map and a search's two figures that is a dozen
MAX_SHOWN_KEYS = 12  # in tables, sentences and names
MAX_VALUE, MAX_NAME = 32, 64  # characters of a value in a name, and of the name
NUM_GROUPS = 4  # of a key with many numbers


def figure_keys(results: Results) -> list[str]:
    """Return the keys that get a figure: all with numbers, or the most important if they are too many."""
    keys = results.numeric_keys()
    return keys if len(keys) <= MAX_FIGURE_KEYS else by_importance(results, keys)[:MAX_FIGURE_KEYS]


def shown_keys(results: Results) -> list[str]:
    """Return the keys that the page's table and the names of points show, in the command's order."""
    if len(results.keys) <= MAX_SHOWN_KEYS:
        return results.keys
    chosen = {*by_importance(results, results.keys)[:MAX_SHOWN_KEYS]}
    return [key for key in results.keys if key in chosen]


def keys_left_out(results: Results) -> list[str]:
    """Return in words which keys no table shows, and by what the others were chosen."""
    num_hidden = len(results.keys) - len(shown_keys(results))
    if not num_hidden:
        return []
    return [
        f"{num_hidden} of the {len(results.keys)} swept keys are not shown: those between whose values the least of "
        "the score's variance lies."
    ]


def left_out(results: Results) -> list[str]:
    """Return in words which keys have no figure, and by what the others were chosen."""
    keys, drawn = results.numeric_keys(), figure_keys(results)
    if len(drawn) == len(keys):
        return []
    return [
        f"{len(drawn)} of the {len(keys)} swept numbers have a figure: those between whose values (in quarters, if "
        f"they are many) most of the score's variance lies. report.csv has all."
    ]


def point_names(points: Sequence[Point], keys: Sequence[str]) -> list[str]:
    """Return what makes the points differ from each other in these keys, such as "lr=0.01", short enough to read."""
    differing = [key for key in keys if len({point.values[key] for point in points}) > 1] or keys
    texts = {key: short_names([show(point.values[key]) for point in points], MAX_VALUE) for key in differing}
    names = [" ".join(f"{key}={texts[key][place]}" for key in differing) for place in range(len(points))]
    return short_names([name or "all runs" for name in names], MAX_NAME)


def by_importance(results: Results, keys: list[str]) -> list[str]:
    """Return the keys, that with the largest share of the score's variance first; equals keep their order."""
    scores = [(point, score) for point in results.points if (score := point.mean(results.score_key)) is not None]
    shares = {key: variance_share([(point.values[key], score) for point, score in scores]) for key in keys}
    return sorted(keys, key=lambda key: -shares[key])


def variance_share(pairs: list[tuple[Value, float]]) -> float:
    """Return the share of the scores' variance that lies between the values, from 0 to 1; `pairs` are value and score.

    Many different numbers are put into quarters. The share is epsilon squared, which does not grow with the number of
    groups alone (Kelley, An unbiased correlation ratio measure, 1935).
    """
    groups: dict[Value, list[float]] = defaultdict(list)
    limits = quarters([value for value, _ in pairs])
    for value, score in pairs:
        groups[bisect_left(limits, float(value or 0)) if limits else value].append(score)
    mean = fmean(score for _, score in pairs) if pairs else 0.0
    total = sum((score - mean) ** 2 for _, score in pairs)
    if len(groups) >= len(pairs) or total == 0:
        return 0.0
    within = sum((score - fmean(scores)) ** 2 for scores in groups.values() for score in scores)
    return max(0.0, 1 - within / (len(pairs) - len(groups)) * (len(pairs) - 1) / total)


def quarters(values: list[Value]) -> list[float]:
    """Return the numbers that part the values into quarters; none if they are few or not all numbers."""
    numbers = [float(value) for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len({*numbers}) <= NUM_GROUPS:
        return []
    return quantiles(numbers, n=NUM_GROUPS)
