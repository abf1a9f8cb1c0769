"""The CSV files of the report on a sweep, for programs: report.csv has a row per point, runs.csv one per run."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from cifar.reports.findings.rivals import Rival, rivals
from cifar.reports.runs.results import STATUSES, TEST_ON, Results

FORMULA = ("=", "+", "-", "@")


def points_csv(results: Results) -> str:
    """Return report.csv: a row per point, accuracies as fractions with the ends of their intervals."""
    header = ["rank", *results.keys, "seeds"]
    names = [*dict.fromkeys(["val_accuracy", "test_accuracy", *results.accuracies])]
    for name in names:
        header += [f"{name}_mean", f"{name}_ci95_low", f"{name}_ci95_high"]
    names_of_means = ("train_loss", "train_seconds", "eval_seconds", "images_per_second")
    header += [*[f"{name}_mean" for name in names_of_means], "skipped_steps", *STATUSES]
    header += ["test_against_best", "p_value", "p_value_holm"]
    compared = {id(rival.point): rival for rival in rivals(results)}
    rows: list[list[Any]] = [header]
    for rank, point in enumerate(results.points, start=1):
        row: list[Any] = [rank, *point.values.values(), len(point.seeds)]
        for name in names:
            found = point.interval(name)
            row += [found.mean, found.low, found.high] if found else [None, None, None]
        row += [point.mean(name) for name in names_of_means]
        row += [point.num_skipped, *[point.count(status) for status in STATUSES]]
        rows.append([*row, *p_values(compared.get(id(point)))])
    return csv_text(rows)


def p_values(rival: Rival | None) -> list[Any]:
    """Return how a point was compared with the best, and both p values; None for each if it was not."""
    if rival is None or rival.comparison is None:
        return [None, None, None]
    return [rival.comparison.kind, rival.comparison.p_value, rival.corrected]


def runs_csv(results: Results, output: Path) -> str:
    """Return runs.csv: a row per run, in the points' order."""
    names = (
        "val_accuracy", "val_loss", "best_val_accuracy", "best_val_epoch", "test_accuracy", "test_tta_accuracy",
        "test_loss", "train_loss",
        "epochs", "steps", "skipped_steps", "train_seconds", "eval_seconds", "images_per_second",
    )  # fmt: skip
    beside = [name for name in results.accuracies if name.startswith(TEST_ON)]
    header = ["folder", *results.keys, "seed", "status", *names, *beside, "config_hash", "error", "command"]
    rows: list[list[Any]] = [header]
    for run in results.runs:
        start: list[Any] = [os.path.relpath(run.folder, output), *(run.values[key] for key in results.keys), run.seed]
        figures = [*(run.summary.get(name) for name in names), *map(run.figure, beside)]
        rows.append([*start, run.status, *figures, run.summary.get("config_hash"), run.error, run.command])
    return csv_text(rows)


def csv_text(rows: list[list[Any]]) -> str:
    """Return the rows as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([[defused(cell) for cell in row] for row in rows])
    return file.getvalue()


def defused(cell: Any) -> Any:
    """Return the cell, behind an apostrophe if a spreadsheet would take its text for a formula; numbers are none."""
    if not isinstance(cell, str) or not (cell.startswith(("\t", "\r")) or cell.lstrip().startswith(FORMULA)):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell
