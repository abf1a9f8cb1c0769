"""The report on a sweep, made at the end of every -m and at any time: python -m cifar.report multirun/DATE/TIME

Several folders or globs are reported together. Beside the table for readers (report.md, report.html) there are
report.csv with a row per point and runs.csv with a row per run.
"""

import argparse
import glob
import math
import os
import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cifar import signals
from cifar.csv_files import points_csv, runs_csv
from cifar.errors import UserError
from cifar.importance import left_out
from cifar.reading import read_results
from cifar.results import Point, Results, Run, Value, show
from cifar.run_folder import write_atomically
from cifar.sweep import time_text
from cifar.verdict import note, verdict
from cifar.wording import NOTHING, Column, number, percent_with_interval

if TYPE_CHECKING:
    from cifar.drawing import Figure

MAX_CONSOLE_ROWS = 20


def report(folders: Sequence[Path], output: Path) -> Results:
    """Write report.md, report.html, the CSV files and the figures into `output`, and show the table and the path.

    Raises `UserError` if there is no run in the folders.
    """
    from cifar.figures import draw_figures
    from cifar.page import write_page

    results = read_results(folders)
    sentences = verdict(results)
    print(console(results, sentences))
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / "report.csv", points_csv(results))
    write_text(output / "runs.csv", runs_csv(results, output))
    figures = draw_figures(results, output) + study_figures(results, output)
    images = [(figure.title, f"{figure.stem}.png") for figure in figures]
    write_text(output / "report.md", markdown(results, sentences, images))
    write_page(results, columns(results), figures, sentences, note(results), output / "report.html")
    print(f"Report: {os.path.relpath(output / 'report.md')} (and report.html, report.csv, runs.csv, figures)")
    return results


def study_figures(results: Results, output: Path) -> list["Figure"]:
    """Draw what the report on a search shows beside; a study that can't be read costs a warning."""
    if not (output / "study.db").exists():
        return []
    try:
        from cifar.study_figures import draw_study

        return draw_study(output, results.warnings)
    except (UserError, ImportError) as error:
        results.warnings.append(f"The search's history is not shown: {error}")
        return []


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    write_atomically(path, lambda file: file.write(text.encode()))


def columns(results: Results) -> list[Column]:
    """Return the table's columns, a row per point, in order of importance."""
    points = results.points
    ranks, counts = [*range(1, len(points) + 1)], [len(point.seeds) for point in points]
    table = [
        Column("rank", [*map(str, ranks)], ranks),
        *[Column(key, [show(value) for value in values], values) for key, values in swept(results)],
        Column("seeds", [*map(str, counts)], counts),
    ]
    for name, title in results.accuracies.items():
        texts = [percent_with_interval(point.interval(name)) for point in points]
        table.append(Column(title, texts, [point.mean(name) for point in points]))
    statuses = [point.status_text for point in points]
    losses, speeds = ([point.mean(name) for point in points] for name in ("train_loss", "images_per_second"))
    times = [wall_seconds(point) for point in points]
    return [
        *table,
        Column("status", statuses, statuses),
        Column("train loss", [*map(number, losses)], losses),
        Column("time", [NOTHING if time is None else time_text(time) for time in times], times),
        Column("images/s", [*map(number, speeds)], speeds),
    ]


def swept(results: Results) -> list[tuple[str, list[Value]]]:
    """Return the swept keys, each with its value at every point."""
    return [(key, [point.values[key] for point in results.points]) for key in results.keys]


def wall_seconds(point: Point) -> float | None:
    """Return the mean seconds of a run, training and evaluation; None if no run counts."""
    parts = [value for name in ("train_seconds", "eval_seconds") if (value := point.mean(name)) is not None]
    return sum(parts) if parts else None


def markdown(results: Results, sentences: list[str], figures: list[tuple[str, str]]) -> str:
    """Return report.md; `figures` are titles and file names."""
    table = columns(results)
    rows = zip(*[column.texts for column in table], strict=True)
    lines = [
        f"# Report on {', '.join(shown(folder) for folder in results.folders)}",
        "",
        *[f"> **Warning:** {text}\n" for text in results.warnings],
        *[f"{text}\n" for text in sentences],
        markdown_row([column.title for column in table]),
        markdown_row(["---"] * len(table)),
        *[markdown_row(row) for row in rows],
        "",
        note(results),
        "",
    ]
    if results.constants:
        lines += [f"The same everywhere: {constants(results)}", ""]
    if failed := [run for run in results.runs if run.status == "failed"]:
        lines += [
            "## Failed runs",
            "",
            *[f"- `{run.folder.name}` {label(run)}: {escape(run.error)}" for run in failed],
            "",
        ]
    lines += [f"{text}\n" for text in left_out(results)]
    for title, name in figures:
        lines += [f"## {title}", "", f"![{title}]({name})", ""]
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(map(escape, cells))} |"


def escape(text: str) -> str:
    """Return the text without what Markdown would take for a table's end or for HTML."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def shown(folder: Path) -> str:
    """Return a folder's last two names, such as "2026-11-23/06-11-37"."""
    return "/".join(folder.absolute().parts[-2:])


def label(run: Run) -> str:
    """Return what the run is, such as "lr=0.01 seed=3"."""
    return " ".join(f"{key}={show(value)}" for key, value in {**run.values, "seed": run.seed}.items())


def constants(results: Results) -> str:
    """Return the values of the command line that all runs share."""
    return ", ".join(f"{key}={show(value)}" for key, value in results.constants.items())


def console(results: Results, sentences: list[str]) -> str:
    """Return what the terminal shows: the best rows, and as many columns as fit, the most important first."""
    table = columns(results)
    num_rows = len(results.points) if len(results.points) <= MAX_CONSOLE_ROWS else MAX_CONSOLE_ROWS - 1
    widths = [max(map(len, [column.title, *column.texts[:num_rows]])) for column in table]
    limit = shutil.get_terminal_size().columns if sys.stdout.isatty() else math.inf
    while len(widths) > 3 and sum(widths) + 2 * (len(widths) - 1) > limit:
        widths.pop()
    rows = [[column.title for column in table], *zip(*[column.texts[:num_rows] for column in table], strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if num_rows < len(results.points):
        lines.append(f"… and {len(results.points) - num_rows} more in report.md")
    return "\n".join([*[f"Warning: {text}" for text in results.warnings], *lines, *sentences])


def main() -> None:
    """Report on the folders that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m cifar.report", description="Report on a sweep, or on several together; also on unfinished ones."
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="a sweep's folder, a run's, or a glob of such")
    parser.add_argument(
        "--output", type=Path, help="where to write it: the folder if it is one, else multirun/report-DATE-TIME"
    )
    options = parser.parse_args()
    try:
        folders = find_folders(options.folders)
        output = options.output or (
            folders[0] if len(folders) == 1 else Path(f"multirun/report-{datetime.now():%Y-%m-%d-%H-%M-%S}")
        )
        with signals.pipe_may_close():
            report(folders, output)
    except (UserError, OSError) as error:
        sys.exit(str(error))


def find_folders(words: Sequence[str]) -> list[Path]:
    """Return the folders that the words name; raise `UserError` for the first that names none."""
    folders: list[Path] = []
    for word in words:
        names = [word] if Path(word).is_dir() else sorted(glob.glob(str(Path(word).expanduser()), recursive=True))
        found = [Path(name) for name in names if Path(name).is_dir()]
        if not found:
            raise UserError(f"{word}: there is no such folder.")
        folders += found
    return [*dict.fromkeys(folders)]


if __name__ == "__main__":
    main()
