"""The figures of the report on a sweep, as PNG and SVG: accuracy against each swept number, curves, a heat map.

They are drawn on objects of their own, without matplotlib's global state. The best points have the same colour in all.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.results import Curve, Point, Results, Run, Value, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

# Okabe & Ito's colours, which the colour-blind tell apart (2008, jfly.uni-koeln.de/color)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#000000")
GREY = "#B8B8B8"
MAX_LABEL = 40  # characters
STRAY = 5  # a loss this many times the median one may leave the picture
MAX_CELLS = 400  # of a heat map: beyond, no number can be read
CURVE_NAMES = {"train/loss": ("training loss", ""), "val/accuracy": ("validation accuracy", " (%)")}


@dataclass(frozen=True)
class Figure:
    """A figure in the report's folder: STEM.png and STEM.svg."""

    stem: str
    title: str


def draw_figures(results: Results, folder: Path) -> list[Figure]:
    """Draw what the results have to show into `folder`."""
    drawn = []
    for key in results.numeric_keys():
        drawn.append((Figure(f"accuracy_vs_{safe(key)}", f"Accuracy against {key}"), draw_accuracy(results, key)))
    if any(len(curve[0]) > 1 for run in results.runs for curve in run.curves.values()):
        title = " and ".join(name for key, (name, _) in CURVE_NAMES.items() if is_recorded(results.runs, key))
        drawn.append((Figure("curves", title.capitalize()), draw_curves(results)))
    if keys := heatmap_keys(results):
        stem, title = f"heatmap_{'_'.join(map(safe, keys))}", f"Accuracy by {keys[0]} and {keys[1]}"
        drawn.append((Figure(stem, title), draw_heatmap(results, *keys)))
    for figure, canvas in drawn:
        save(canvas, folder / figure.stem)
    return [figure for figure, _ in drawn]


def save(canvas: "Canvas", path: Path) -> None:
    """Write PATH.png and PATH.svg, the same bytes for the same figure."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.name, "svg.fonttype": "none"}):
        canvas.savefig(path.with_name(f"{path.name}.png"), dpi=150, metadata={"Software": None})
        canvas.savefig(path.with_name(f"{path.name}.svg"), metadata={"Date": None, "Creator": None})


def new_canvas(width: float, height: float, num_columns: int = 1) -> "tuple[Canvas, list[Axes]]":
    """Return a canvas of that many inches, with axes side by side."""
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(width, height), layout="constrained")
    axes = [canvas.add_subplot(1, num_columns, number + 1) for number in range(num_columns)]
    for panel in axes:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#E6E6E6", linewidth=0.6)
        panel.set_axisbelow(True)
    return canvas, axes


def draw_accuracy(results: Results, key: str) -> "Canvas":
    """Draw the mean accuracy, with its interval, against a swept number; a line for each choice of the other keys.

    A point with a diverged run has a cross. The test accuracy stands beside the validation accuracy, hollow.
    """
    canvas, (axes,) = new_canvas(7, 4.5)
    others = [other for other in results.keys if other != key]
    series = group_by(results, others)
    if is_scatter := len(series) > 1 and all(len(points) == 1 for points in series.values()):  # such as of a search
        others = [other for other in others if other not in results.numeric_keys()]
        series = group_by(results, others)
    shows_test = results.has_val and len(series) <= len(COLOURS) and not is_scatter
    for rank, (values, points) in reversed([*enumerate(series.items())]):
        points = sorted(points, key=lambda point: float(point.values[key] or 0))
        colour = COLOURS[rank] if rank < len(COLOURS) else GREY
        label = shorten(" ".join(f"{other}={show(value)}" for other, value in zip(others, values, strict=True)))
        style = "o" if is_scatter else "-" if colour == GREY else "o-"
        draw_series(axes, points, key, results.score_key, colour, style, label or main_label(results))
        if shows_test:
            places, means, _ = places_of(points, key, "test_accuracy")
            axes.plot(places, means, "o", color=colour, fillstyle="none", markersize=6, zorder=3,
                      label="test" if not label else "")  # fmt: skip
    set_number_axis(axes, results, key)
    axes.set_ylabel(f"{main_label(results)} accuracy (%)" + (", hollow: test" if shows_test and others else ""))
    if any(point.count("diverged") for point in results.points):
        axes.plot([], [], "x", color="#666666", markersize=9, markeredgewidth=2, label="a run diverged")
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -2), min(high, 102))  # an interval of few seeds may reach beyond what an accuracy can be
    add_legend(axes, len(series))
    return canvas


def group_by(results: Results, keys: list[str]) -> dict[tuple[Value, ...], list[Point]]:
    """Return the points that have a result by their values of the keys, the groups in the order of their best."""
    groups: dict[tuple[Value, ...], list[Point]] = {}
    for point in results.points:
        if point.mean(results.score_key) is not None:
            groups.setdefault(tuple(point.values[key] for key in keys), []).append(point)
    return groups


def draw_series(
    axes: "Axes", points: list[Point], key: str, score_key: str, colour: str, style: str, label: str
) -> None:
    """Draw one line or dots with intervals as bars, and a cross where a run diverged."""
    places, means, halves = places_of(points, key, score_key)
    is_grey, bars = colour == GREY, halves if any(halves) else None
    axes.errorbar(places, means, yerr=bars, fmt=style, color=colour, capsize=0 if is_grey else 4,
                  linewidth=1 if is_grey else 1.8, markersize=6, zorder=1 if is_grey else 2,
                  label="_grey" if is_grey else label)  # fmt: skip
    crossed = [place for place, point in enumerate(points) if point.count("diverged")]
    axes.plot([places[place] for place in crossed], [means[place] for place in crossed], "x", color=colour,
              markersize=11, markeredgewidth=2, zorder=4)  # fmt: skip


def places_of(points: list[Point], key: str, name: str) -> tuple[list[float], list[float], list[float]]:
    """Return the points' numbers for `key`, their means of `name` in % and the halves of their intervals, else 0."""
    found = [(point.values[key], point.interval(name)) for point in points]
    known = [(float(value or 0), interval) for value, interval in found if interval is not None]
    halves = [100 * (interval.half or 0) for _, interval in known]
    return [place for place, _ in known], [100 * interval.mean for _, interval in known], halves


def set_number_axis(axes: "Axes", results: Results, key: str) -> None:
    """Label the horizontal axis, logarithmic if the numbers are positive and span a factor of ten or are rates."""
    from matplotlib.ticker import NullFormatter, NullLocator

    numbers = sorted({float(point.values[key] or 0) for point in results.points})
    if numbers[0] > 0 and (numbers[-1] >= 10 * numbers[0] or key.rpartition(".")[2] == "lr"):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    if len(numbers) <= 10:
        axes.set_xticks(numbers, [f"{number:g}" for number in numbers])
    axes.set_xlabel(key)


def draw_curves(results: Results) -> "Canvas":
    """Draw what was recorded of loss and accuracy against the step, a line per point: the best in colour."""
    keys = [key for key in CURVE_NAMES if is_recorded(results.runs, key)]
    canvas, panels = new_canvas(6 * len(keys), 4.5, len(keys))
    shown = [point for point in results.points if any(is_recorded(point.runs, key) for key in keys)]
    for axes, key in zip(panels, keys, strict=True):
        scale = 100 if key == "val/accuracy" else 1
        seen: list[float] = []
        for rank, point in reversed([*enumerate(shown)]):
            is_grey = rank >= len(COLOURS)
            colour = GREY if is_grey else COLOURS[rank]
            if len(shown) <= len(COLOURS) and len(point.runs) > 1:
                for run in point.runs:
                    steps, values = run.curves.get(key, ([], []))
                    axes.plot(steps, [scale * value for value in values], color=colour, linewidth=0.6, alpha=0.35)
            steps, values = mean_curve([run.curves[key] for run in point.runs if key in run.curves])
            seen += [scale * value for value in values]
            marker = "o" if len(steps) == 1 else ""
            axes.plot(steps, [scale * value for value in values], color=colour, linewidth=0.8 if is_grey else 1.6,
                      marker=marker, zorder=1 if is_grey else 2, alpha=0.6 if is_grey else 1,
                      label="_grey" if is_grey else shorten(point.label))  # fmt: skip
        set_curve_limits(axes, seen, key)
        axes.set_xlabel("step")
        axes.set_ylabel("".join(CURVE_NAMES[key]))
    add_legend(panels[0], len(shown))
    return canvas


def is_recorded(runs: Sequence[Run], key: str) -> bool:
    """Return whether any of the runs has values of `key`."""
    return any(run.curves.get(key, ([], []))[0] for run in runs)


def set_curve_limits(axes: "Axes", values: list[float], key: str) -> None:
    """Keep one run that went astray from flattening all others; a loss that spans much is shown on a log scale."""
    finite = sorted(value for value in values if math.isfinite(value))
    if not finite:
        axes.text(0.5, 0.5, "no value is finite", transform=axes.transAxes, ha="center", color="#666666")
        return
    low, median, high = finite[0], finite[len(finite) // 2], finite[-1]
    if key == "train/loss" and low > 0:
        top = min(high, STRAY * median)
        if top > 20 * low:
            axes.set_yscale("log")
            for axis_format in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
                axis_format(lambda value, _: f"{value:g}")
            axes.set_ylim(low / 1.2, top * 1.2)
        elif top < high:
            axes.set_ylim(0, top * 1.05)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean over the curves at the steps that all of them have."""
    curves = [curve for curve in curves if curve[0]]
    if not curves:
        return [], []
    common = set(curves[0][0]).intersection(*(steps for steps, _ in curves[1:]))
    tables = [dict(zip(*curve, strict=True)) for curve in curves]
    steps = sorted(common)
    return steps, [math.fsum(table[step] for table in tables) / len(tables) for step in steps]


def heatmap_keys(results: Results) -> tuple[str, str] | None:
    """Return the two keys with two or more values each, if there are exactly two and half of their pairs were run."""
    sizes = {key: len({point.values[key] for point in results.points}) for key in results.keys}
    keys = [key for key, size in sizes.items() if size > 1]
    if len(keys) != 2 or 2 * len(results.points) < sizes[keys[0]] * sizes[keys[1]]:
        return None
    return keys[0], keys[1]


def draw_heatmap(results: Results, row_key: str, column_key: str) -> "Canvas":
    """Draw the accuracy for every pair of values; a cross marks a point with a diverged run, "–" one without result."""
    rows, columns = ordered(results, row_key), ordered(results, column_key)
    table = {(point.values[row_key], point.values[column_key]): point for point in results.points}
    means = {place: point.mean(results.score_key) for place, point in table.items()}
    cells = [[100 * mean if (mean := means.get(place)) is not None else math.nan
              for place in product([row], columns)] for row in rows]  # fmt: skip
    canvas, (axes,) = new_canvas(1.8 + 0.9 * min(len(columns), 20), 1.6 + 0.5 * min(len(rows), 30))
    axes.grid(visible=False)
    known = [value for line in cells for value in line if not math.isnan(value)]
    image = axes.imshow(cells, cmap="viridis", aspect="auto")
    if len(rows) * len(columns) <= MAX_CELLS:
        for (y, row), (x, column) in product(enumerate(rows), enumerate(columns)):
            value = cells[y][x]
            text = "–" if math.isnan(value) else f"{value:.1f}"
            if (point := table.get((row, column))) is not None and point.count("diverged"):
                text += " ×"
            is_dark = bool(known) and value < (min(known) + max(known)) / 2
            axes.text(x, y, text, ha="center", va="center", fontsize=9, color="white" if is_dark else "black")
    names = [shorten(show(value)) for value in columns]
    is_tight = len(names) > 1 and max(map(len, names)) > 8
    axes.set_xticks(range(len(columns)), names, rotation=30 if is_tight else 0, ha="right" if is_tight else "center")
    axes.set_yticks(range(len(rows)), [shorten(show(value)) for value in rows])
    axes.set_xlabel(column_key)
    axes.set_ylabel(row_key)
    crosses = "\n× a run diverged" if any(point.count("diverged") for point in results.points) else ""
    canvas.colorbar(image, ax=axes, label=f"{main_label(results)} accuracy (%){crosses}")
    return canvas


def ordered(results: Results, key: str) -> list[Value]:
    """Return a key's values, numbers first and ascending, then the others in the alphabet's order."""

    def place(value: Value) -> tuple[int, float, str]:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (0, float(value), "") if is_number else (1, 0.0, show(value))  # type: ignore[arg-type]

    return sorted({point.values[key] for point in results.points}, key=place)


def add_legend(axes: "Axes", num_series: int) -> None:
    """Add the ranked legend, which says how many lines are grey."""
    handles, labels = axes.get_legend_handles_labels()
    pairs: list[tuple[Any, str]] = [*zip(handles, labels, strict=True)][::-1]  # they were drawn the best last
    if num_series > len(COLOURS):
        (grey,) = axes.plot([], [], color=GREY)
        pairs.append((grey, f"{num_series - len(COLOURS)} others"))
    if pairs:
        axes.legend([handle for handle, _ in pairs], [label for _, label in pairs], frameon=False, fontsize=8)


def main_label(results: Results) -> str:
    """Return which accuracy the results are ranked by."""
    return "validation" if results.has_val else "test"


def shorten(text: str) -> str:
    """Return the text, cut if it is too long for a legend."""
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"


def safe(key: str) -> str:
    """Return a key as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", key).strip(".") or "key"
