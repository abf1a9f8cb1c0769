"""The figures of the report on a sweep, as PNG and SVG: accuracy against each swept number, curves, a heat map.

They are drawn on objects of their own, without matplotlib's global state. The best points have the same colour in all.
"""

import math
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.reports.figures.accuracy import draw_accuracy, main_label
from cifar.reports.figures.drawing import (
    BAND,
    COLOURS,
    DARK_GREY,
    GREY,
    INK,
    SCREEN,
    Drawing,
    Figure,
    Style,
    add_legend,
    letters_in,
    new_canvas,
    others_entry,
    render,
    safe,
    width_of,
)
from cifar.reports.figures.ticks import set_accuracy_axis, set_ticks
from cifar.reports.findings.importance import figure_keys, point_names, shown_keys
from cifar.reports.findings.wording import short_names, shorten
from cifar.reports.runs.results import CURVES, Curve, Point, Results, Run, Value, show

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

STRAY = 5  # a loss this many times the median one may leave the picture
MAX_CELLS = 400  # of a heat map: beyond, no number can be read
MIN_PANEL = 2.5  # inches: narrower ones stand below each other
SLANTED, UPRIGHT = 0.4, 0.2  # inches between labels that are turned by 30 and by 90 degrees
MAX_CURVES = 200  # points whose curves are drawn, the best first
CURVE_NAMES = {"train/loss": ("training loss", ""), "val/accuracy": ("validation accuracy", " (%)")}


def draw_figures(results: Results, folder: Path, style: Style = SCREEN) -> list[Figure]:
    """Draw what the results have to show into `folder`; nothing is drawn of what has no result."""
    has_result = any(point.mean(results.score_key) is not None for point in results.points)
    drawings: list[Drawing] = []
    for number, key in enumerate(figure_keys(results) if has_result else []):
        stem = f"accuracy_vs_{safe(key)}"
        stem += f"-{number}" * any(stem == figure.stem for figure, _ in drawings)
        drawings.append((Figure(stem, f"Accuracy against {shorten(key)}"), partial(draw_accuracy, results, key)))
    if any(len(curve[0]) > 1 for run in results.runs for curve in run.curves.values()):
        title = " and ".join(name for key, (name, _) in CURVE_NAMES.items() if is_recorded(results.runs, key))
        title += ": means over seeds, bands from the lowest to the highest" * has_bands(results)
        drawings.append((Figure("curves", title.capitalize()), partial(draw_curves, results)))
    if has_result and (keys := heatmap_keys(results)):
        stem, title = f"heatmap_{'_'.join(map(safe, keys))}", f"Accuracy by {' and '.join(map(shorten, keys))}"
        drawings.append((Figure(stem, title), partial(draw_heatmap, results, *keys)))
    return render(drawings, folder, results.warnings, style)


def has_bands(results: Results) -> bool:
    """Return whether a point has curves of two or more runs."""
    return any(sum(is_recorded([run], key) for run in point.runs) > 1 for point in results.points for key in CURVES)


def draw_curves(results: Results, width: float | None = None) -> "Canvas":
    """Draw what was recorded of loss and accuracy against the step, a line per point: the best in colour.

    Without a `width` each of the panels is six inches wide; where they would be too narrow they stand one below the
    other.
    """
    keys = [key for key in CURVE_NAMES if is_recorded(results.runs, key)]
    num_columns = len(keys) if width is None or width / len(keys) >= MIN_PANEL else 1
    num_rows, panel = len(keys) // num_columns, 6 if width is None else width / num_columns
    height = 4 if width is None else 0.65 * panel
    canvas, panels = new_canvas(num_columns * panel, num_rows * height, num_columns, num_rows)
    shown = [point for point in results.points if any(is_recorded(point.runs, key) for key in keys)][:MAX_CURVES]
    names = point_names(shown[: len(COLOURS)], shown_keys(results))
    entries: dict[str, Any] = {}
    for axes, key in zip(panels, keys, strict=True):
        seen: list[float] = []
        for rank, point in reversed([*enumerate(shown)]):
            colour = COLOURS[rank] if rank < len(COLOURS) else GREY
            line, values = draw_curve(axes, point.runs, key, colour)
            seen += values
            if colour != GREY:
                entries[names[rank]] = line
        if key == "val/accuracy":
            set_accuracy_axis(axes, seen, height - 0.7)
        else:
            set_loss_axis(axes, seen, height - 0.7)
        axes.set_xlabel("step")
        axes.set_ylabel("".join(CURVE_NAMES[key]))
        set_ticks(axes.xaxis, panel - 1)
    ranked = [(entries[name], name) for name in names]
    bands = [(panels[0].fill_between([], [], color=DARK_GREY, alpha=BAND, linewidth=0), "lowest to highest seed")]
    others = others_entry(panels[0], len(shown) - len(COLOURS))
    add_legend(canvas, ranked + others + bands * has_bands(results))
    return canvas


def draw_curve(axes: "Axes", runs: Sequence[Run], key: str, colour: str) -> tuple[Any, list[float]]:
    """Draw the mean curve of a point, a coloured one with its band over seeds; return it and all heights."""
    scale, is_grey = 100 if key == "val/accuracy" else 1, colour == GREY
    curves = [run.curves[key] for run in runs if run.curves.get(key, ([], []))[0]]
    steps, values = mean_curve(curves)
    heights = [scale * value for value in values]
    (line,) = axes.plot(steps, heights, color=colour, linewidth=0.8 if is_grey else 1.6, zorder=1 if is_grey else 2,
                        marker="o" if len(steps) == 1 else "", alpha=0.6 if is_grey else 1)  # fmt: skip
    if is_grey or len(curves) < 2:
        return line, heights
    lows, highs = ([scale * value for value in side] for side in band(curves))
    axes.fill_between(steps, lows, highs, color=colour, alpha=BAND, linewidth=0, zorder=1.5)
    return line, [*heights, *lows, *highs]


def is_recorded(runs: Sequence[Run], key: str) -> bool:
    """Return whether any of the runs has values of `key`."""
    return any(run.curves.get(key, ([], []))[0] for run in runs)


def set_loss_axis(axes: "Axes", losses: list[float], inches: float) -> None:
    """Keep one run that went astray from flattening all others; a loss that spans much is shown on a log scale."""
    finite = sorted(value for value in losses if math.isfinite(value))
    if not finite:
        axes.text(0.5, 0.5, "no value is finite", transform=axes.transAxes, ha="center", color=DARK_GREY)
        axes.set_yticks([])
        return
    low, median, high = finite[0], finite[len(finite) // 2], finite[-1]
    top = min(high, STRAY * median) if low > 0 else high
    if low > 0 and top > 20 * low:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, top * 1.2)
    elif top < high:
        axes.set_ylim(0, top * 1.05)
    set_ticks(axes.yaxis, inches)


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean over the curves at the steps that all of them have."""
    curves = [curve for curve in curves if curve[0]]
    if not curves:
        return [], []
    common = set(curves[0][0]).intersection(*(steps for steps, _ in curves[1:]))
    tables = [dict(zip(*curve, strict=True)) for curve in curves]
    steps = sorted(common)
    return steps, [math.fsum(table[step] for table in tables) / len(tables) for step in steps]


def band(curves: Sequence[Curve]) -> tuple[list[float], list[float]]:
    """Return the lowest and the highest value of the curves at the steps that all of them have."""
    steps, _ = mean_curve(curves)
    tables = [dict(zip(*curve, strict=True)) for curve in curves if curve[0]]
    columns = [[table[step] for table in tables] for step in steps]
    return [*map(min, columns)], [*map(max, columns)]


def heatmap_keys(results: Results) -> tuple[str, str] | None:
    """Return the two keys with two or more values each, if there are exactly two and half of their pairs were run."""
    sizes = {key: len({point.values[key] for point in results.points}) for key in results.keys}
    keys = [key for key, size in sizes.items() if size > 1]
    if len(keys) != 2 or 2 * len(results.points) < sizes[keys[0]] * sizes[keys[1]]:
        return None
    return keys[0], keys[1]


def draw_heatmap(results: Results, row_key: str, column_key: str, width: float | None = None) -> "Canvas":
    """Draw the accuracy for every pair of values; a cross marks a point with a diverged run, "–" one without result.

    Without a `width` it is as wide as its cells ask for; else numbers that would not fit into them are left out.
    """
    rows, columns = ordered(results, row_key), ordered(results, column_key)
    table = {(point.values[row_key], point.values[column_key]): point for point in results.points}
    means = {place: point.mean(results.score_key) for place, point in table.items()}
    cells = [[100 * mean if (mean := means.get(place)) is not None else math.nan
              for place in product([row], columns)] for row in rows]  # fmt: skip
    limit = 24 if width is None else letters_in(width / 5)
    names, row_names = (short_names([show(value) for value in values], limit) for values in (columns, rows))
    margin = (2.4 if width is None else 1.6) + width_of(row_names)
    cell = (0.9 * min(len(columns), 20) if width is None else max(width - margin, 0.5)) / len(columns)
    rotation = 0 if width_of(names) < 0.8 * cell or len(names) < 2 else 30 if cell > SLANTED else 90
    line = (0.5 if width is None else 0.3) * min(len(rows), 30) / len(rows)  # inches a row takes
    height = 1.4 + line * len(rows) + width_of(names) * {0: 0, 30: 0.5, 90: 1}[rotation]
    canvas, (axes,) = new_canvas(width or max(margin + cell * len(columns), 4), max(height, 0.4 * (width or 6)))
    axes.grid(visible=False)
    low, high = color_limits([value for line in cells for value in line if not math.isnan(value)])
    image = axes.imshow(cells, cmap="viridis", aspect="auto", vmin=low, vmax=high)
    texts = {
        (x, y): cell_text(table.get((row, column)), cells[y][x])
        for (y, row), (x, column) in product(enumerate(rows), enumerate(columns))
    }
    if len(texts) <= MAX_CELLS and (width is None or width_of([*texts.values()]) < cell):
        write_cells(axes, texts, cells, (low + high) / 2)
    every, every_row = (math.ceil(UPRIGHT / inches) for inches in (cell, line))
    axes.set_xticks(range(0, len(columns), every), names[::every], rotation=rotation,
                    ha="right" if rotation == 30 else "center")  # fmt: skip
    axes.set_yticks(range(0, len(rows), every_row), row_names[::every_row])
    axes.set_xlabel(shorten(column_key, letters_in(width or 6)))
    axes.set_ylabel(shorten(row_key, letters_in(height)))
    crosses = "\n× a run diverged" if any(point.count("diverged") for point in results.points) else ""
    bar = canvas.colorbar(image, ax=axes, label=f"{main_label(results)} accuracy (%){crosses}")
    set_ticks(bar.ax.yaxis, 0.6 * canvas.get_figheight(), within=(0, 100))
    return canvas


def cell_text(point: Point | None, percent: float) -> str:
    """Return what stands in a cell of the heat map."""
    text = "–" if math.isnan(percent) else f"{percent:.1f}"
    return f"{text} ×" if point is not None and point.count("diverged") else text


def write_cells(axes: "Axes", texts: dict[tuple[int, int], str], percents: list[list[float]], middle: float) -> None:
    """Write the cells' texts, light on dark and dark on light."""
    for (x, y), text in texts.items():
        percent = percents[y][x]
        colour = INK if math.isnan(percent) else "#FAFAFA" if percent < middle else "#101010"
        axes.text(x, y, text, ha="center", va="center", fontsize=9, color=colour)


def color_limits(percents: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the colour scale, which are a percentage point or more apart and can be reached."""
    low, high = min(percents), max(percents)
    if high - low >= 1:
        return low, high
    low = max(0.0, min(99.0, (low + high - 1) / 2))
    return low, low + 1


def ordered(results: Results, key: str) -> list[Value]:
    """Return a key's values, numbers first and ascending, then the others in the alphabet's order."""

    def place(value: Value) -> tuple[int, float, str]:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return (0, float(value), "") if is_number else (1, 0.0, show(value))  # type: ignore[arg-type]

    return sorted({point.values[key] for point in results.points}, key=place)
