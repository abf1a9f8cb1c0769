"""What finished, cut and coming runs have to say, pooled over seeds; cifar/reports/runs/reading.py reads it.

A point of a sweep is a configuration without its seed; its runs are that configuration's seeds.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from cifar.experiment.typed.command_line import run_command
from cifar.reports.runs.statistics import Interval, interval
from cifar.sweeps.plan import OVER

COUNTED = ("completed", "diverged")  # the statuses whose accuracies enter the means
STATUSES = (*OVER, "failed", "interrupted", "running", "pending")
CURVES = ("train/loss", "val/accuracy")
TEST_ON = "test_on."  # before the name of a test set beside the run's own

Value = str | int | float | bool | None
Curve = tuple[list[int], list[float]]  # steps and values


@dataclass
class Run:
    """One run: its folder, how it ended, and what it measured.

    `values` holds the swept keys' values. `number` is its job's in the sweep. Curves that were not logged are empty.
    """

    folder: Path
    status: str
    number: int | None = None
    seed: int | None = None
    overrides: list[str] = field(default_factory=list)
    choices: dict[str, Value] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)  # leaves by their keys with dots
    summary: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)

    @property
    def is_counted(self) -> bool:
        """Return whether its accuracies enter the means."""
        return self.status in COUNTED

    @property
    def num_skipped(self) -> int:
        """How many steps were skipped because the loss or the gradient was not finite."""
        return self.summary.get("skipped_steps") or 0

    @property
    def skipped_text(self) -> str:
        """How many of its steps were skipped, such as "11 of 12 steps skipped"; nothing if none was."""
        return skipped_text(self.num_skipped, self.summary.get("steps"))

    @property
    def status_text(self) -> str:
        """How it ended, such as "completed, 11 of 12 steps skipped"."""
        return ", ".join(filter(None, (self.status, self.skipped_text)))

    @property
    def error(self) -> str:
        """The first line of what ended it, or nothing."""
        lines = self.summary.get("error", "").splitlines()
        return lines[0] if lines else ""

    @property
    def command(self) -> str:
        """The command that makes it again, for a shell."""
        return run_command(self.overrides, self.summary.get("flags", []))

    def figure(self, key: str) -> float | None:
        """Return a number of its summary, "test_on.NAME" for the accuracy on that set; None if there is none."""
        if key.startswith(TEST_ON):
            value = self.summary.get("test_on", {}).get(key.removeprefix(TEST_ON), {}).get("accuracy")
        else:
            value = self.summary.get(key)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


@dataclass
class Point:
    """One row of the report: the swept keys' values, and the runs that differ only in the seed."""

    values: dict[str, Value]
    runs: list[Run]

    @property
    def label(self) -> str:
        """What makes the point differ from the others, such as "lr=0.01"."""
        return self.named([*self.values])

    def named(self, keys: Sequence[str]) -> str:
        """Return the point's values of some swept keys, such as "lr=0.01 …" where there are more."""
        words = [f"{key}={show(self.values[key])}" for key in keys]
        return " ".join([*words, *(["…"] if len(keys) < len(self.values) else [])]) or "all runs"

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs that are counted."""
        return sorted({run.seed for run in self.runs if run.is_counted and run.seed is not None})

    def over_seeds(self, key: str) -> dict[int, float]:
        """Return seed → the summary's number, of the runs that are counted; the mean of runs of the same seed."""
        found: dict[int, list[float]] = defaultdict(list)
        for run in self.runs:
            if run.is_counted and run.seed is not None and (value := run.figure(key)) is not None:
                found[run.seed].append(value)
        return {seed: fmean(values) for seed, values in found.items()}

    def interval(self, key: str) -> Interval | None:
        """Return the mean and its interval of an accuracy in the summary, over the runs that are counted."""
        return interval([*self.over_seeds(key).values()])

    def mean(self, key: str) -> float | None:
        """Return the mean of a number of the summary."""
        values = self.over_seeds(key).values()
        return fmean(values) if values else None

    def count(self, status: str) -> int:
        """Return how many of its runs ended so."""
        return sum(run.status == status for run in self.runs)

    @property
    def status_text(self) -> str:
        """How its runs ended, such as "2 completed, 1 diverged, 3 of 36 steps skipped"."""
        counts = [f"{self.count(status)} {status}" for status in STATUSES if self.count(status)]
        steps = [run.summary["steps"] for run in self.runs if run.is_counted and "steps" in run.summary]
        skipped = skipped_text(self.num_skipped, sum(steps) or None)
        return ", ".join([*counts, *filter(None, (skipped,))])

    @property
    def num_skipped(self) -> int:
        """How many steps its counted runs skipped."""
        return sum(run.num_skipped for run in self.runs if run.is_counted)


@dataclass
class Results:
    """All runs, pooled: `points` are ranked, the best first; `keys` are the swept ones, in the command's order."""

    folders: list[Path]
    keys: list[str]
    constants: dict[str, Value]
    points: list[Point]
    warnings: list[str]

    @property
    def runs(self) -> list[Run]:
        """All runs, in the points' order."""
        return [run for point in self.points for run in point.runs]

    @cached_property
    def has_val(self) -> bool:
        """Return whether the runs held validation images out to choose by."""
        return any(run.figure("val_accuracy") is not None for run in self.runs)

    @cached_property
    def accuracies(self) -> dict[str, str]:
        """The accuracies that are shown, by their names in the summaries; TTA is test-time augmentation."""
        shown = {"val_accuracy": "validation"} if self.has_val else {}
        has_tta = any(run.figure("test_tta_accuracy") is not None for run in self.runs)
        beside = dict.fromkeys(name for run in self.runs for name in run.summary.get("test_on", {}))
        return (
            shown
            | {"test_accuracy": "test"}
            | ({"test_tta_accuracy": "test with TTA"} if has_tta else {})
            | {f"{TEST_ON}{name}": f"on {name}" for name in beside}
        )

    @property
    def score_key(self) -> str:
        """The number of the summary that ranks: by validation, and without it by test accuracy."""
        return "val_accuracy" if self.has_val else "test_accuracy"

    def numeric_keys(self) -> list[str]:
        """Return the swept keys with two or more values, all of them numbers."""
        return [
            key
            for key in self.keys
            if len(values := {point.values[key] for point in self.points}) > 1
            and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        ]


def skipped_text(num_skipped: int, num_steps: int | None) -> str:
    """Return in words how many steps were skipped; nothing if none was."""
    of_all = "" if num_steps is None else f" of {num_steps}"
    return f"{num_skipped}{of_all} steps skipped" if num_skipped else ""


def show(value: Value) -> str:
    """Return a value as one would write it on the command line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)
