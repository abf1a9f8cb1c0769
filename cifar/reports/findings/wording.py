"""Figures in words: how accuracies, their intervals, other numbers and long names are shown to readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import category

from cifar.reports.runs.statistics import MIN_SEEDS, Interval

NOTHING = "–"
MAX_LABEL = 40  # characters


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


def shorten(text: str, limit: int = MAX_LABEL) -> str:
    """Return the text on one line, cut in the middle if it is too long."""
    text = printable(text)
    head, tail = limit - 1 - (limit - 1) // 2, (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:head]}…{text[-tail:]}"


def short_names(texts: Sequence[str], limit: int = MAX_LABEL) -> list[str]:
    """Return the texts shortened so that they still differ: what they share is cut first, as of long paths."""
    if all(len(text) <= limit for text in texts) or len({*texts}) < 2:
        return [shorten(text, limit) for text in texts]
    head = shared_length(texts)
    tail = shared_length([text[head:][::-1] for text in texts])
    # Of what is shared a little stays, because it says what it is: a path's separator, else a few letters.
    slash = texts[0].rfind("/", 0, head)
    start = slash if slash >= 0 else max(head - 3, 0)
    end = texts[0].find("/", len(texts[0]) - tail)
    rest = max(tail - 3, 0) if end < 0 else len(texts[0]) - end - 1
    cut = [f"{'…' * (start > 0)}{text[start : len(text) - rest]}{'…' * (rest > 0)}" for text in texts]
    names = [shorten(text, limit) for text in cut]
    if len({*names}) == len({*texts}):
        return names
    return [f"{number} {shorten(name, limit - 5)}" for number, name in enumerate(names, 1)]


def shared_length(texts: Sequence[str]) -> int:
    """Return how many letters all the texts begin with."""
    first, last = min(texts), max(texts)  # what these two share, those between them share too
    return next((place for place, letter in enumerate(first) if letter != last[place]), len(first))
