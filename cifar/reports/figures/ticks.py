"""Axes that can be read: a scale for the numbers, and ticks whose labels stand clear of each other."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cifar.reports.figures.drawing import CHARACTER, FONT_SIZE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

BEYOND = 3.0  # percentage points, where the whole of a mark at 0 or 100 % still shows
GAP = 8.0  # points between two labels
MAX_VALUE_TICKS = 12  # beyond, ticks are round numbers instead of the values themselves


def set_number_axis(axes: "Axes", key: str, numbers: Sequence[float], inches: float) -> None:
    """Scale the horizontal axis for a swept key's numbers and put ticks at them, or at round numbers if they crowd."""
    scale = choose_scale(key, numbers)
    if scale == "symlog":
        axes.set_xscale("symlog", linthresh=min(abs(number) for number in numbers if number), linscale=0.6)
    elif scale == "log":
        axes.set_xscale("log")
    values = sorted({*numbers})
    set_ticks(axes.xaxis, inches, values if len(values) <= MAX_VALUE_TICKS else ())


def choose_scale(key: str, numbers: Sequence[float]) -> str:
    """Return "log" if the numbers are positive and span a factor of ten or are rates, "symlog" for 0 beside such."""
    sizes = sorted(abs(number) for number in numbers if number)
    if not sizes:
        return "linear"
    if min(numbers) > 0:
        return "log" if sizes[-1] >= 10 * sizes[0] or key.rpartition(".")[2] == "lr" else "linear"
    return "symlog" if sizes[-1] >= 100 * sizes[0] else "linear"


def set_ticks(
    axis: "Axis", inches: float, values: Sequence[float] = (), within: tuple[float, float] = (-math.inf, math.inf)
) -> None:
    """Put the most ticks on an axis `inches` long that fit: at the values, else at round numbers within its limits."""
    from matplotlib.ticker import NullLocator

    low, high = sorted(map(float, axis.get_view_interval()))
    known = [[*values]] if values else []
    for ticks in [*known, *round_ticks(axis, low, high)]:
        inside = [tick for tick in ticks if max(low, within[0]) <= tick <= min(high, within[1])]
        labels = tick_labels(inside)
        if (len(inside) > 1 or len(values) == 1) and has_room(axis, inside, labels, 72 * inches):
            break
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(inside, labels)


def round_ticks(axis: "Axis", low: float, high: float) -> Iterator[list[float]]:
    """Yield round numbers from `low` to `high`, ever fewer, as the axis's scale asks for."""
    from matplotlib.ticker import MaxNLocator

    scale, steps = axis.get_scale(), (1, 2, 3, 5, 10, 20, 50, 100)
    if scale == "log":
        for digits in ((1, 2, 5), (1, 3)):
            yield [digit * power for power in decades(low, high) for digit in digits]
        for step in steps:
            yield decades(low, high, step)
    if scale == "symlog":
        least = axis.get_transform().linthresh  # type: ignore[attr-defined]
        for step in steps:
            upper, lower = (decades(least, end, step) if end > least else [] for end in (high, -low))
            yield [*(-power for power in reversed(lower)), 0.0, *upper]
    for count in (8, 6, 5, 4, 3, 2, 1):
        yield [float(tick) for tick in MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]


def decades(low: float, high: float, step: int = 1) -> list[float]:
    """Return every `step`th power of ten from about `low` to `high`."""
    first = math.floor(math.log10(low) / step) * step
    return [10.0**power for power in range(first, math.floor(math.log10(high)) + 1, step)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the numbers with as few digits, six or more, as tell them apart."""
    for digits in range(6, 18):
        labels = [f"{tick:.{digits}g}" for tick in ticks]
        if len({*labels}) == len({*ticks}):
            break
    return labels


def has_room(axis: "Axis", ticks: Sequence[float], labels: Sequence[str], length: float) -> bool:
    """Return whether the labels stand clear of each other on an axis of that many points."""
    import numpy as np
    from matplotlib.axis import XAxis

    transform = axis.get_transform()
    low, high = sorted(transform.transform(np.array(axis.get_view_interval(), dtype=float)))
    places = sorted(length * (transform.transform(np.array(ticks, dtype=float)) - low) / (high - low))
    sizes = (
        [CHARACTER * len(label) for label in labels] if isinstance(axis, XAxis) else [float(FONT_SIZE)] * len(labels)
    )
    ends = zip(places, places[1:], sizes, sizes[1:], strict=False)
    return all(second - first >= (size + other) / 2 + GAP for first, second, size, other in ends)


def set_accuracy_axis(axes: "Axes", percents: Sequence[float], inches: float) -> None:
    """Limit the vertical axis to what was reached, with room for marks at 0 and 100 %, but no ticks beyond."""
    known = [value for value in percents if math.isfinite(value)]
    if not known:
        return
    low, high = min(known), max(known)
    room = max(0.06 * (high - low), 0.5)
    axes.set_ylim(max(low - room, min(low, 0) - BEYOND), min(high + room, max(high, 100) + BEYOND))
    set_ticks(axes.yaxis, inches, within=(0, 100))
