"""What the terminal shows at a sweep's end: drawn where somebody looks at it, and plain where the output is piped."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cifar.reports.findings.table import columns
from cifar.reports.findings.wording import Column, printable
from cifar.reports.runs.results import Results

if TYPE_CHECKING:
    from rich.console import Console

MAX_ROWS = 20
MIN_COLUMNS = 3
GAP = 2  # between columns
TROUBLE = ("failed", "diverged", "interrupted")


def show(results: Results, sentences: Sequence[str]) -> None:
    """Print the best rows of the table, warnings before and the verdict behind them."""
    if not sys.stdout.isatty():
        print(plain(results, sentences), flush=True)
        return
    from rich.console import Console

    draw(results, sentences, Console(highlight=False, emoji=False, markup=False))


def plain(results: Results, sentences: Sequence[str]) -> str:
    """Return all that is shown as text, in lines as long as they need to be."""
    table, num_rows = columns(results), num_shown(results)
    widths = [max(map(len, [column.title, *column.texts[:num_rows]])) for column in table]
    rows = [[column.title for column in table], *zip(*[column.texts[:num_rows] for column in table], strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    warnings = [f"Warning: {text}" for text in results.warnings]
    return "\n".join(map(printable, [*warnings, *lines, *more(results), *sentences]))


def draw(results: Results, sentences: Sequence[str], console: "Console") -> None:
    """Draw the table, with as many columns as fit, the most important first; the best row is bold."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    num_rows = num_shown(results)
    table = fitting(columns(results), num_rows, console.width)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP, 0, 0))
    for column in table:
        is_number = all(isinstance(value, (int, float)) or value is None for value in column.values)
        drawn.add_column(Text(printable(column.title)), no_wrap=True, justify="right" if is_number else "left")
    for place in range(num_rows):
        cells = [
            Text(text := printable(column.texts[place]), "red" if is_bad(column, text) else "") for column in table
        ]
        drawn.add_row(*cells, style="bold" if place == 0 and len(results.points) > 1 else None)
    for text in results.warnings:
        console.print(Text(printable(f"Warning: {text}"), "yellow"))
    console.print(drawn)
    for number, text in enumerate([*more(results), *sentences]):
        console.print(Text(printable(text), "bold" if number == len(more(results)) else ""))


def fitting(table: list[Column], num_rows: int, width: int) -> list[Column]:
    """Return as many of the first columns as fit, three at least."""
    from rich.cells import cell_len

    sizes = [max(map(cell_len, map(printable, [column.title, *column.texts[:num_rows]]))) + GAP for column in table]
    count = len(table)
    while count > MIN_COLUMNS and sum(sizes[:count]) > width:
        count -= 1
    return table[:count]


def is_bad(column: Column, text: str) -> bool:
    """Return whether the cell says that runs did not end well."""
    return column.title == "status" and any(word in text for word in TROUBLE)


def num_shown(results: Results) -> int:
    """Return how many rows are shown, with room for a line that says how many are not."""
    return len(results.points) if len(results.points) <= MAX_ROWS else MAX_ROWS - 1


def more(results: Results) -> list[str]:
    """Return the line that says how many rows are not shown, if any."""
    num_left = len(results.points) - num_shown(results)
    return [f"… and {num_left} more in report.md"] if num_left else []
