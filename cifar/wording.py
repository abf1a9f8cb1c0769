"""Figures in words: how accuracies, their intervals and other numbers are shown to readers."""

from dataclasses import dataclass
from typing import Any
from unicodedata import category

from cifar.statistics import MIN_SEEDS, Interval

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
    """Return a mean accuracy with the ends of its interval, such as "45.12 % (44.01–46.20)".

    Without an interval the values themselves are shown, such as "45.00, 61.20 %" or, if they are equal, "45.00 % each".
    """
    if interval is None:
        return NOTHING
    if interval.low is not None and interval.high is not None:
        return f"{percent(interval.mean)} ({100 * interval.low:.2f}–{100 * interval.high:.2f})"
    if len(interval.values) >= MIN_SEEDS:
        return f"{percent(interval.mean)} each"
    return f"{', '.join(f'{100 * value:.2f}' for value in interval.values)} %"


def number(value: float | None) -> str:
    """Return a number with four significant digits, or all of its whole ones."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.4g}"


def printable(text: str) -> str:
    """Return the text on one line, without characters that steer a terminal or turn the direction of what follows."""
    return "".join(" " if category(character)[0] in "CZ" else character for character in text)
