"""The figure of accuracy against one swept number, with intervals; a line for each choice of the other keys."""

import math
from typing import TYPE_CHECKING, Any

from cifar.reports.figures.drawing import (
    COLOURS,
    DARK_GREY,
    GREY,
    MAX_VECTORS,
    add_legend,
    letters_in,
    new_canvas,
    others_entry,
)
from cifar.reports.figures.ticks import set_accuracy_axis, set_number_axis
from cifar.reports.findings.importance import point_names, shown_keys
from cifar.reports.findings.wording import shorten
from cifar.reports.runs.results import Point, Results, Value
from cifar.reports.runs.statistics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

CROSS: dict[str, Any] = {"marker": "x", "linestyle": "none", "markersize": 9, "markeredgewidth": 2}


def draw_accuracy(results: Results, key: str, width: float | None = None) -> "Canvas":
    """Draw the mean accuracy, with its interval, against a swept number; a line for each choice of the other keys.

    A point with a diverged run has a cross. The test accuracy stands beside the validation accuracy, hollow. Of points
    with too few seeds for an interval the seeds' own values are dots. Without a `width` it is 7 inches wide.
    """
    width = width or 7
    height = 0.6 * width
    canvas, (axes,) = new_canvas(width, height)
    series, names, is_scatter = find_series(results, key)
    shows_test = results.has_val and len(series) <= len(COLOURS) and not is_scatter
    entries, seen = [], []
    for rank, points in reversed([*enumerate(series)]):
        colour = COLOURS[rank] if rank < len(COLOURS) else GREY
        style = "o" if is_scatter else "-" if colour == GREY else "o-"
        handle, values = draw_series(axes, points, key, results.score_key, colour, style)
        entries += [(handle, names[rank])] if rank < len(names) and names[rank] else []
        seen += values
        if shows_test:
            places, means, _ = places_of(points, key, "test_accuracy")
            axes.plot(places, means, "o", color=colour, fillstyle="none", markersize=6, zorder=3)
            seen += means
    numbers = sorted({place for points in series for place in places_of(points, key, results.score_key)[0]})
    if sum(map(len, series)) > MAX_VECTORS:
        axes.set_rasterization_zorder(5)
    axes.set_xlabel(shorten(key, letters_in(width - 0.8)))
    axes.set_ylabel("accuracy (%)" if shows_test else f"{main_label(results)} accuracy (%)")
    set_number_axis(axes, key, numbers, width - 0.8)
    set_accuracy_axis(axes, seen, height - 0.8)
    entries = entries[::-1] + others_entry(axes, len(series) - len(COLOURS))
    add_legend(canvas, entries + mark_entries(axes, results, shows_test))
    return canvas


def mark_entries(axes: "Axes", results: Results, shows_test: bool) -> list[tuple[Any, str]]:
    """Return the legend's entries for what the marks mean."""
    marks = []
    if shows_test:
        for name, fill in (("validation", "full"), ("test", "none")):
            marks.append((axes.plot([], [], "o", color=DARK_GREY, fillstyle=fill)[0], name))
    if any(point.count("diverged") for point in results.points):
        marks.append((axes.plot([], [], color=DARK_GREY, **CROSS)[0], "a run diverged"))
    return marks


def find_series(results: Results, key: str) -> tuple[list[list[Point]], list[str], bool]:
    """Return the points of each line along `key`, the best line first, the best ones' names, and whether it is dots."""
    others = [other for other in results.keys if other != key]
    series = group_by(results, key, others)
    if is_scatter := len(series) > 1 and all(len(points) == 1 for points in series.values()):  # such as of a search
        numeric = {*results.numeric_keys()}
        others = [other for other in others if other not in numeric]
        series = group_by(results, key, others)
    shown = [other for other in shown_keys(results) if other in {*others}]
    names = point_names([points[0] for points in series.values()][: len(COLOURS)], shown) if shown else [""]
    return [*series.values()], names, is_scatter


def group_by(results: Results, along: str, keys: list[str]) -> dict[tuple[Value, ...], list[Point]]:
    """Return the points that have a result by their values of the keys, the groups in the order of their best."""
    groups: dict[tuple[Value, ...], list[Point]] = {}
    for point in results.points:
        if point.mean(results.score_key) is not None:
            groups.setdefault(tuple(point.values[key] for key in keys), []).append(point)
    return {values: sorted(points, key=lambda point: number_of(point, along)) for values, points in groups.items()}


def number_of(point: Point, key: str) -> float:
    """Return the point's number for a key."""
    return float(point.values[key] or 0)


def draw_series(
    axes: "Axes", points: list[Point], key: str, score_key: str, colour: str, style: str
) -> tuple[Any, list[float]]:
    """Draw one line or dots with intervals as bars, and a cross where a run diverged; return it and all its heights."""
    places, means, bars = places_of(points, key, score_key)
    is_grey = colour == GREY
    has_bars = not all(map(math.isnan, bars[0]))
    line = axes.errorbar(places, means, yerr=bars if has_bars else None, fmt=style, color=colour,
                         capsize=0 if is_grey else 4, linewidth=1 if is_grey else 1.8, markersize=6,
                         zorder=1 if is_grey else 2)  # fmt: skip
    heights = [*means]
    for below, above, mean in zip(*bars, means, strict=True):
        heights += [] if math.isnan(below) else [mean - below, mean + above]
    for point in points:
        values = [100 * value for value in point.over_seeds(score_key).values()]
        if len(values) == 2 and not is_grey:
            axes.plot([number_of(point, key)] * 2, values, ".", color=colour, markersize=4, zorder=2)
            heights += values
    crossed = [point for point in points if point.count("diverged") and math.isfinite(number_of(point, key))]
    axes.plot([number_of(point, key) for point in crossed], [100 * (point.mean(score_key) or 0) for point in crossed],
              color=colour, zorder=4, **CROSS | {"markersize": 11})  # fmt: skip
    return line[0], heights


def places_of(points: list[Point], key: str, name: str) -> tuple[list[float], list[float], list[list[float]]]:
    """Return the points' numbers for `key`, their means of `name` in %, and how far their intervals go down and up.

    Without an interval that is NaN. Numbers that are not finite have no place.
    """
    found = [(number_of(point, key), point.interval(name)) for point in points]
    known = [(number, interval) for number, interval in found if interval is not None and math.isfinite(number)]
    ends = [bounds(interval) for _, interval in known]
    means = [100 * interval.mean for _, interval in known]
    downs = [mean - 100 * low for mean, (low, _) in zip(means, ends, strict=True)]
    ups = [100 * high - mean for mean, (_, high) in zip(means, ends, strict=True)]
    return [number for number, _ in known], means, [downs, ups]


def bounds(interval: Interval) -> tuple[float, float]:
    """Return the ends of an interval, NaN if the values say too little for one."""
    if interval.low is None or interval.high is None:
        return math.nan, math.nan
    return interval.low, interval.high


def main_label(results: Results) -> str:
    """Return which accuracy the results are ranked by."""
    return "validation" if results.has_val else "test"
