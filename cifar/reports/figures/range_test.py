"""The figure of a range test: the loss against the learning rate."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cifar.reports.figures.drawing import COLOURS, GREY, Figure, add_legend, new_canvas, render
from cifar.training.steps.range_test import RangeTest

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

STEM = "lr_find"
ROOM = 0.15  # of the curve's height, above and below


def draw_range_test(found: RangeTest, folder: Path, warnings: list[str]) -> list[Figure]:
    """Draw lr_find.png and lr_find.svg into the folder."""
    return render([(Figure(STEM, "Loss against learning rate"), partial(draw, found))], folder, warnings)


def draw(found: RangeTest, width: float | None = None) -> "Canvas":
    """Draw the loss of every step, the smoothed loss, and the rates that are named."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    width = width or 7
    canvas, (axes,) = new_canvas(width, 0.55 * width)
    (dots,) = axes.plot(found.lrs, found.losses, ".", color=GREY, markersize=4)
    (line,) = axes.plot(found.lrs, found.smoothed, color=COLOURS[0], linewidth=2)
    entries = [(dots, "each step"), (line, "smoothed")]
    lowest = axes.axvline(found.lowest, color=COLOURS[1], linestyle="--", linewidth=1.2)
    entries.append((lowest, f"lowest loss: {found.lowest:.2g}"))
    if found.steepest is not None:
        steepest = axes.axvline(found.steepest, color=COLOURS[2], linestyle="--", linewidth=1.2)
        entries.append((steepest, f"steepest fall: {found.steepest:.2g}"))
    low, high = min(found.losses), max(found.smoothed[0], *found.losses[: len(found.losses) // 2])
    axes.set_ylim(low - ROOM * (high - low), high + 2 * ROOM * (high - low) or 1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))  # without mathematics
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    add_legend(canvas, entries)
    return canvas
