"""Figures in words: how accuracies, their intervals and other numbers are shown to readers."""

from dataclasses import dataclass
from typing import Any

from cifar.statistics import Interval

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, and for every row the text and the value to sort by, None for nothing."""

    title: str
    texts: list[str]
    values: list[Any]


def percent(fraction: float | None) -> str:
    """Return an accuracy such as "45.12 %"."""
    return NOTHING if fraction is None else f"{100 * fraction:.2f} %"


def percent_with_interval(interval: Interval | None) -> str:
    """Return a mean accuracy with half the width of its interval, such as "45.12 ± 0.80 %"."""
    if interval is None or interval.half is None:
        return percent(interval.mean if interval else None)
    return f"{100 * interval.mean:.2f} ± {100 * interval.half:.2f} %"


def number(value: float | None) -> str:
    """Return a number with four significant digits, or all of its whole ones."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"
