"""report.md: the report on a sweep as Markdown, in which nothing that comes from runs is taken for markup."""

import re
from collections.abc import Sequence
from pathlib import Path

from cifar.reports.findings.importance import keys_left_out, left_out
from cifar.reports.findings.table import note, unfinished
from cifar.reports.findings.wording import Column, printable
from cifar.reports.runs.results import Results, Run, show

MAX_UNFINISHED = 100  # runs that are listed by themselves
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# What gets a backslash: _ only outside words, and a colon or dot where GitHub would make a link of the text.
MARKUP = re.compile(r"[\\`*\[\]|~$@]|(?<![^\W_])_|_(?![^\W_])|(?<=[A-Za-z]):(?=//)|(?<=[wW]{3})\.")


def markdown(
    results: Results, table: Sequence[Column], sentences: Sequence[str], figures: Sequence[tuple[str, str]]
) -> str:
    """Return report.md; `figures` are titles and file names."""
    lines = [
        f"# Report on {escape(', '.join(shown(folder) for folder in results.folders))}",
        "",
        *[f"> **Warning:** {escape(text)}\n" for text in results.warnings],
        *[f"{escape(text)}\n" for text in sentences],
        row([column.title for column in table]),
        f"|{' --- |' * len(table)}",
        *map(row, zip(*[column.texts for column in table], strict=True)),
        "",
        escape(note(results)),
        "",
        *[f"{escape(text)} report.csv has all.\n" for text in keys_left_out(results)],
    ]
    if results.constants:
        lines += [f"The same everywhere: {escape(constants(results))}", ""]
    if troubles := unfinished(results):
        lines += ["## Runs that failed, diverged or have not ended", ""]
        lines += [line for run in troubles[:MAX_UNFINISHED] for line in trouble(run)]
        lines += [f"{len(troubles) - MAX_UNFINISHED} more stand in runs.csv.", ""] * (len(troubles) > MAX_UNFINISHED)
    lines += [f"{escape(text)}\n" for text in left_out(results)]
    for title, name in figures:
        lines += [f"## {escape(title)}", "", f"![{escape(title)}]({name})", ""]
    return "\n".join(lines)


def row(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(map(escape, cells))} |"


def trouble(run: Run) -> list[str]:
    """Return the item of a list that says of a run how it is, and of what, with its command in a block of its own."""
    error = f": {escape(run.error)}" if run.error else ""
    command = printable(run.command)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    item = f"- **{escape(run.folder.name)}** {escape(label(run))}, {escape(run.status)}{error}"
    return [item, "", f"  {fence}bash", f"  {command}", f"  {fence}", ""]


def escape(text: str) -> str:
    """Return the text as Markdown that shows it as it is, on one line."""
    text = MARKUP.sub(r"\\\g<0>", printable(text))
    return re.sub("[&<>]", lambda match: ENTITIES[match[0]], text)


def shown(folder: Path) -> str:
    """Return a folder's last two names, such as "2026-11-23/06-11-37"."""
    return "/".join(folder.absolute().parts[-2:])


def label(run: Run) -> str:
    """Return what the run is, such as "lr=0.01 seed=3"."""
    return " ".join(f"{key}={show(value)}" for key, value in {**run.values, "seed": run.seed}.items())


def constants(results: Results) -> str:
    """Return the values of the command line that all runs share."""
    return ", ".join(f"{key}={show(value)}" for key, value in results.constants.items())
