"""The figures of one run, as PNG and SVG: curves, confusion matrix, accuracy per class, calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.reports.figures.drawing import (
    COLOURS,
    GREY,
    INK,
    LINE,
    Drawing,
    Figure,
    add_legend,
    letters_in,
    new_canvas,
    render,
    width_of,
)
from cifar.reports.figures.sweep import set_loss_axis
from cifar.reports.figures.ticks import set_accuracy_axis, set_ticks
from cifar.reports.findings.classification import bins, confusion, overall, per_class
from cifar.reports.findings.wording import shorten
from cifar.tracking.answers import Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

MAX_NAMED = 40  # classes that a figure names
MAX_NUMBERS = 20  # classes up to which the cells of a matrix have numbers


@dataclass(frozen=True)
class Panel:
    """One picture of curves: its title, factor on the values, and series by their keys in metrics.jsonl."""

    title: str
    scale: float
    keys: Mapping[str, str]  # name → key


PANELS = (
    Panel("loss", 1, {"training": "train/loss", "validation": "val/loss"}),
    Panel("accuracy (%)", 100, {"training": "train/accuracy", "validation": "val/accuracy"}),
    Panel("learning rate", 1, {"learning rate": "lr"}),
)
NAMES = ("training", "validation", "learning rate")  # in the order of the colours

Curves = Mapping[str, Sequence[float]]


def draw_run(answers: Stored, curves: Curves, folder: Path, warnings: list[str]) -> list[Figure]:
    """Draw what there is to show of a run into `folder`."""
    drawings: list[Drawing] = []
    if any(known_curve(curves, key)[0] for panel in PANELS for key in panel.keys.values()):
        drawings.append((Figure("run_curves", "Loss, accuracy and learning rate"), partial(draw_run_curves, curves)))
    drawings += [
        (Figure("confusion", "Confusion matrix"), partial(draw_confusion, answers)),
        (Figure("class_accuracy", "Accuracy per class"), partial(draw_classes, answers)),
        (Figure("reliability", "Reliability diagram"), partial(draw_reliability, answers)),
    ]
    return render(drawings, folder, warnings)


def known_curve(curves: Curves, key: str) -> tuple[list[int], list[float]]:
    """Return the steps and the values of what was logged under the key, as far as it is finite."""
    pairs = zip(curves.get("step", ()), curves.get(key, ()), strict=False)
    known = [(int(step), float(value)) for step, value in pairs if isfinite(step) and isfinite(value)]
    return [step for step, _ in known], [value for _, value in known]


def draw_run_curves(curves: Curves, width: float | None) -> "Canvas":
    """Draw loss, accuracy and learning rate against the step."""
    canvas, panels = new_canvas(width or 14, 3.6, len(PANELS))
    entries = {}
    for axes, panel in zip(panels, PANELS, strict=True):
        seen: list[float] = []
        for name, key in panel.keys.items():
            steps, values = known_curve(curves, key)
            heights = [panel.scale * value for value in values]
            if steps:
                mark = "o" if len(steps) == 1 else None
                (line,) = axes.plot(steps, heights, color=COLOURS[NAMES.index(name)], linewidth=1.6, marker=mark)
                entries[name] = line
            seen += heights
        axes.set_xlabel("step")
        axes.set_ylabel(panel.title)
        if panel.title == "loss":
            set_loss_axis(axes, seen, 2.7)
        elif panel.scale == 100:
            set_accuracy_axis(axes, seen, 2.7)
        set_ticks(axes.xaxis, 3.2)
    add_legend(canvas, [(entries[name], name) for name in NAMES if name in entries])
    return canvas


def draw_confusion(answers: Stored, width: float | None) -> "Canvas":
    """Draw how many images of each class were predicted to be of which, as shares of the class's images."""
    matrix = confusion(answers)
    num_classes = len(matrix)
    names = [shorten(name, letters_in(1.2)) for name in answers.names()]
    side = min(max(4.0, 0.5 * num_classes), 9.0)
    canvas, (axes,) = new_canvas(width or side + width_of(names), side + width_of(names))
    shares = matrix / matrix.sum(axis=1, keepdims=True).clip(min=1)
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if num_classes <= MAX_NUMBERS:
        for row in range(num_classes):
            for column in range(num_classes):
                colour = "white" if shares[row, column] > 0.5 else "black"
                text = f"{matrix[row, column]}" if matrix[row, column] else ""
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
    if num_classes <= MAX_NAMED:
        axes.set_xticks(range(num_classes), names, rotation=90)
        axes.set_yticks(range(num_classes), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return canvas


def draw_classes(answers: Stored, width: float | None) -> "Canvas":
    """Draw the accuracy of each class with its interval, the best on top, and the overall one as a line."""
    named = [(name, part) for name, part in zip(answers.names(), per_class(answers), strict=True) if part.total]
    named.sort(key=lambda pair: pair[1].fraction)
    if len(named) > MAX_NAMED:  # the worst, which one wants to see
        named = named[:MAX_NAMED]
    names = [shorten(name, letters_in(1.8)) for name, _ in named]
    canvas, (axes,) = new_canvas(width or 7, 0.9 + 0.3 * len(named))
    places = range(len(named))
    fractions = [100 * part.fraction for _, part in named]
    ends = [part.interval for _, part in named]
    bars = [
        [value - 100 * low for value, (low, _) in zip(fractions, ends, strict=True)],
        [100 * high - value for value, (_, high) in zip(fractions, ends, strict=True)],
    ]
    axes.axvline(100 * overall(answers).fraction, color=GREY, linewidth=1.2)
    axes.errorbar(fractions, places, xerr=bars, fmt="o", color=COLOURS[0], capsize=3, markersize=5)
    axes.set_yticks(places, names)
    axes.set_ylim(-0.6, len(named) - 0.4)
    axes.set_xlabel("accuracy (%)")
    set_ticks(axes.xaxis, 4.5, within=(0, 100))
    return canvas


def draw_reliability(answers: Stored, width: float | None) -> "Canvas":
    """Draw the accuracy of images against the confidence with which they were predicted, and how many those are."""
    found = bins(answers)
    canvas, (axes, below) = new_canvas(width or 5.6, 5.6, 1, 2)
    axes.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle="--", zorder=3)
    middles = [50 * (entry.low + entry.high) for entry in found]
    thickness = [100 * (entry.high - entry.low) for entry in found]
    axes.bar(
        middles, [100 * entry.accuracy for entry in found], thickness, color=COLOURS[5], edgecolor=LINE, linewidth=0.6
    )
    axes.plot([100 * entry.confidence for entry in found], [100 * entry.accuracy for entry in found], "o",
              color=COLOURS[0], markersize=5)  # fmt: skip
    below.bar(middles, [entry.count for entry in found], thickness, color=COLOURS[5], edgecolor=LINE, linewidth=0.6)
    axes.set_ylabel("accuracy (%)")
    below.set_ylabel("images")
    below.set_xlabel("confidence (%)")
    for panel in (axes, below):
        panel.set_xlim(0, 100)
        set_ticks(panel.xaxis, 4.6)
    axes.set_ylim(0, 103)
    set_ticks(axes.yaxis, 2.2, within=(0, 100))
    below.tick_params(colors=INK)
    return canvas
