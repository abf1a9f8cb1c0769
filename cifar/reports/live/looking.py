"""What runs and sweeps are doing now, from their files alone: nothing is written, no lock is touched."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

from cifar.base.locks import seems_alive
from cifar.reports.live.following import Cached, Metrics, MetricsTail, log_lines
from cifar.reports.runs.records import is_count, is_texts, read_summary
from cifar.sweeps.plan import OVER, PLAN, Plan, is_run, natural, read_plan

RECENT_SECONDS = 3600.0  # how long a run by itself that failed is shown
PLACE = re.compile(r"Epoch \[\d+/(\d+)\], Step \[\d+/(\d+)\]")  # of a line in run.log
FILES = ("metrics.jsonl", "run.log", "summary.json", ".hydra/config.yaml")  # that say when a run last did something
BAD = ("failed", "diverged", "died")


@dataclass(frozen=True)
class LiveRun:
    """One run: how it is, how far, and the last lines of its log; `num_steps` is None while nobody has said it.

    `silent_seconds` have passed since it wrote down anything. `status` is "died" for a process that is gone.
    """

    folder: Path
    name: str
    status: str
    metrics: Metrics
    num_epochs: int | None
    num_steps: int | None
    silent_seconds: float
    error: str
    lines: list[str]
    ended_at: float

    @property
    def seconds_left(self) -> float | None:
        """How long the training will still take if it goes on as it did; None: not known."""
        if not self.num_steps or not self.metrics.step or not self.metrics.seconds:
            return None
        return self.metrics.seconds / self.metrics.step * max(0, self.num_steps - self.metrics.step)


@dataclass(frozen=True)
class LiveSweep:
    """A sweep and what has become of its jobs, or runs that belong to none (`plan` is None)."""

    folder: Path
    plan: Plan | None
    statuses: dict[str, int]
    runs: list[LiveRun]
    is_alive: bool

    @property
    def num_jobs(self) -> int:
        """How many jobs it has."""
        return sum(self.statuses.values())


@dataclass
class Known:
    """What was read of a run's folder before."""

    metrics: MetricsTail
    summary: Cached[dict[str, Any]]


@dataclass
class Watcher:
    """Look at folders again and again; `roots` are what the user named."""

    roots: Sequence[Path]
    known: dict[Path, Known] = field(default_factory=dict)
    plans: dict[Path, Cached[Plan | None]] = field(default_factory=dict)

    def look(self) -> list[LiveSweep]:
        """Return the sweeps and runs at work, and of those that were named themselves also what is over."""
        sweeps: dict[Path | None, list[Path]] = {}
        for root in self.roots:
            for folder, sweep in find(root):
                sweeps.setdefault(sweep, []).append(folder)
        found = [self.look_at(sweep, folders) for sweep, folders in sweeps.items() if sweep is not None]
        shown = [sweep for sweep in found if sweep.is_alive or self.is_named(sweep.folder)]
        alone = self.alone(sweeps.get(None, []))
        return shown + ([alone] if alone.runs else [])

    def is_named(self, folder: Path) -> bool:
        """Return whether the user named the folder itself."""
        return folder in self.roots

    def look_at(self, sweep: Path, folders: list[Path]) -> LiveSweep:
        """Return how a sweep is, whose runs' folders are given."""
        plan = self.plans.setdefault(sweep, Cached(sweep / PLAN, lambda path: sound(read_plan(path.parent)))).read()
        runs = [run for folder in folders if is_run(folder) and (run := self.run(folder, plan))]
        statuses = dict.fromkeys(["done", "running", "failed", "interrupted", "pending"], 0)
        for run in runs:
            statuses[kind(run.status)] += 1
        statuses["pending"] = max(0, len(plan.jobs) - len(runs)) if plan else 0
        is_alive = seems_alive(sweep) or statuses["running"] > 0
        return LiveSweep(sweep, plan, statuses, runs, is_alive)

    def alone(self, folders: list[Path]) -> LiveSweep:
        """Return the runs that belong to no sweep: at work, named themselves, or failed not long ago."""
        runs = []
        for folder in folders:
            if not is_run(folder) or (run := self.run(folder, None)) is None:
                continue
            is_new = run.status in BAD and time() - run.ended_at < RECENT_SECONDS
            runs += [run] if run.status == "running" or is_new or self.is_named(folder) else []
        return LiveSweep(self.roots[0], None, {}, runs, any(run.status == "running" for run in runs))

    def run(self, folder: Path, plan: Plan | None) -> LiveRun | None:
        """Return how the run in a folder is; None if the folder has gone."""
        known = self.known.setdefault(
            folder,
            Known(
                MetricsTail(folder / "metrics.jsonl"),
                Cached(folder / "summary.json", lambda path: read_summary(path, [])),
            ),
        )
        summary = known.summary.read() or {}
        status = str(summary.get("status") or "running")
        if status == "running" and not seems_alive(folder):
            status = "died"
        is_shown = status == "running" or status in BAD
        times = [*changes(folder, FILES if is_shown else ("summary.json",))]
        if not times:
            return None
        metrics = known.metrics.read() if is_shown else Metrics()
        lines = log_lines(folder) if is_shown else []
        num_epochs, num_steps = length(summary, lines, metrics)
        error = next(iter(summary.get("error", "").splitlines()), "")
        name = name_of(folder, summary, plan) if is_shown or plan is None else ""
        return LiveRun(folder, name, status, metrics, num_epochs, num_steps,
                       max(0.0, time() - max(times)), error, lines, max(times))  # fmt: skip


def sound(plan: Plan | None) -> Plan | None:
    """Return the plan, if its jobs are what a sweep writes."""
    return plan if plan is not None and all(map(is_texts, [plan.swept, *plan.jobs])) else None


def find(root: Path, sweep: Path | None = None) -> Iterator[tuple[Path, Path | None]]:
    """Yield the folders in a folder, and itself, each with the sweep to which it belongs, "2" before "10"."""
    if (root / PLAN).exists():
        sweep = root
    yield root, sweep
    try:
        inner = [Path(entry.path) for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for path in sorted(inner, key=lambda path: natural(path.name)):
        if not path.name.startswith((".", "replaced-", "wandb")):
            yield from find(path, sweep)


def kind(status: str) -> str:
    """Return under which of a sweep's counts a status falls."""
    if status in OVER:
        return "done"
    return {"running": "running", "failed": "failed"}.get(status, "interrupted")


def changes(folder: Path, names: Sequence[str]) -> Iterator[float]:
    """Yield when the run's files of these names were last written, in seconds since 1970."""
    for name in names:
        try:
            yield (folder / name).stat().st_mtime
        except OSError:
            continue


def name_of(folder: Path, summary: dict[str, Any], plan: Plan | None) -> str:
    """Return what makes a job differ from others, or where a run by itself lies."""
    number = summary.get("job", int(folder.name) if folder.name.isdecimal() and len(folder.name) < 10 else None)
    if plan is not None and is_count(number) and number in plan.numbers:
        return f"{number}  {plan.label(number)}"
    return os.path.relpath(folder)


def length(summary: dict[str, Any], lines: Sequence[str], metrics: Metrics) -> tuple[int | None, int | None]:
    """Return how many epochs and steps the run has: its log says it, else the configuration and an epoch's length."""
    for line in reversed(lines):
        if found := PLACE.search(line):
            num_epochs, epoch_steps = (int(text[:9]) for text in found.groups())
            return num_epochs, num_epochs * epoch_steps
    epochs = summary.get("config", {}).get("epochs")
    if not is_count(epochs):
        return None, None
    return epochs, epochs * metrics.epoch_steps if metrics.epoch_steps else None
