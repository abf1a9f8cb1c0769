"""The terminal page of `cifar watch`: a line or two for each run, in as many columns as there are."""

import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from textwrap import wrap
from time import time

from rich.console import Console
from rich.text import Text

from cifar.base.paths import shown
from cifar.reports.findings.wording import printable, shorten
from cifar.reports.live.looking import BAD, LiveRun, LiveSweep
from cifar.sweeps.plan import time_text

BARS, PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
FULL, EMPTY, PLAIN_FULL, PLAIN_EMPTY = "━", "─", "#", "."
MAX_RUNS = 20  # at work, of one sweep
MAX_FAILURES, MAX_LINES = 5, 3  # of one sweep, and of the log of each
SILENT = 60.0  # seconds without a word, from which on that is said
STYLES = {"running": "green", "failed": "bold red", "diverged": "bold red", "died": "bold red"}


def page(sweeps: Sequence[LiveSweep], roots: Sequence[Path], console: Console, height: int | None = None) -> list[Text]:
    """Return the lines of the page, `height` of them at most."""
    width, is_plain = console.width, not console.encoding.lower().startswith("utf")
    places = ", ".join(shorten(shown(root), 30) for root in roots)
    lines = [Text(f"cifar watch {places}   {datetime.now():%H:%M:%S}", style="bold")]
    for sweep in sweeps:
        lines += [Text(), *sweep_lines(sweep, width, is_plain)]
    if not any(sweep.is_alive for sweep in sweeps):
        lines += [Text(), Text(f"Nothing is running in {places}.")]
    if height is not None and len(lines) > height:
        num_hidden = len(lines) - height + 1
        lines = [*lines[: height - 1], Text(f"{num_hidden} more lines: cifar watch --once shows all", style="dim")]
    for line in lines:
        line.no_wrap, line.overflow = True, "crop" if is_plain else "ellipsis"
        line.truncate(width, overflow="crop" if is_plain else "ellipsis")
    return lines


def sweep_lines(sweep: LiveSweep, width: int, is_plain: bool) -> list[Text]:
    """Return the lines on a sweep: how far it is, its runs at work, and what went wrong."""
    lines = []
    if sweep.plan is not None or sweep.statuses:
        said = progress(sweep)
        name = Text(shorten(shown(sweep.folder), width), style="bold cyan")
        fits = len(name) + 2 + len(said) <= width
        below = [Text(f"  {part}") for part in wrap(said, max(20, width - 2))]
        lines += [Text.assemble(name, "  ", said)] if fits else [name, *below]
    running = [run for run in sweep.runs if run.status == "running"]
    for run in running[:MAX_RUNS]:
        lines += run_lines(run, width, is_plain)
    if len(running) > MAX_RUNS:
        lines.append(Text(f"  and {len(running) - MAX_RUNS} more at work", style="dim"))
    bad = sorted((run for run in sweep.runs if run.status in BAD), key=lambda run: -run.ended_at)
    for run in bad[:MAX_FAILURES]:
        lines += failure_lines(run)
    if len(bad) > MAX_FAILURES:
        lines.append(Text(f"  and {len(bad) - MAX_FAILURES} more that went wrong", style="dim"))
    if sweep.plan is None:  # runs by themselves that are over and were named
        lines += [Text(f"{printable(run.name)}: {run.status}") for run in sweep.runs
                  if run.status not in (*BAD, "running")]  # fmt: skip
    return lines


def progress(sweep: LiveSweep) -> str:
    """Return in words how many jobs are done, and how long the rest will take."""
    counts, rest = sweep.statuses, sweep_seconds_left(sweep)
    return ", ".join([
        f"{counts['done']} of {sweep.num_jobs} jobs done",
        *([f"about {time_text(rest)} to go"] if rest is not None else []),
        *[f"{counts[name]} {name}" for name in ("running", "failed", "interrupted", "pending") if counts[name]],
    ])  # fmt: skip


def sweep_seconds_left(sweep: LiveSweep) -> float | None:
    """Return how long the sweep's jobs will still take if they go on as they did; None: not known."""
    if sweep.plan is None or not sweep.is_alive:
        return None
    num_left = sweep.statuses["running"] + sweep.statuses["pending"]
    num_now = sweep.statuses["done"] + sweep.statuses["failed"] - sweep.plan.num_done_before
    if num_left == 0 or num_now <= 0:
        return None
    return (time() - sweep.plan.started_at) / num_now * num_left


def run_lines(run: LiveRun, width: int, is_plain: bool) -> list[Text]:
    """Return two lines on a run at work: how far it is, and its curves."""
    metrics, rest = run.metrics, run.seconds_left
    facts = [
        f"epoch {metrics.epoch or 1}/{run.num_epochs or '?'}",
        f"step {metrics.step:,}/{run.num_steps:,}" if run.num_steps else f"step {metrics.step:,}",
        f"{metrics.speed:,.0f} images/s" if metrics.speed is not None else "",
        f"{time_text(rest)} left" if rest is not None else "",
        f"silent for {time_text(run.silent_seconds)}" if run.silent_seconds > SILENT else "",
    ]
    said = "  ".join(filter(None, facts))
    name = shorten(run.name, max(12, width - len(said) - 4))
    fraction = min(1.0, metrics.step / run.num_steps) if run.num_steps else 0.0
    room = max(6, (width - 48) // 3)
    loss, accuracy = metrics.losses[-1:], metrics.accuracies[-1:]
    curves = Text.assemble(
        "  ", (bar(fraction, room, is_plain), "green"), f" {100 * fraction:3.0f} %",
        "  loss ", (sparkline(metrics.losses, room, is_plain), "yellow"), f" {loss[0]:.4g}" if loss else " -",
        "  val ", (sparkline(metrics.accuracies, room, is_plain), "magenta"),
        f" {100 * accuracy[0]:.2f} %" if accuracy else " -",
    )  # fmt: skip
    return [Text.assemble("  ", (name, "bold"), "  ", said), curves]


def failure_lines(run: LiveRun) -> list[Text]:
    """Return the lines on a run that went wrong, with the last ones of its log."""
    what = run.error or {"died": "its process is gone"}.get(run.status, "")
    head = Text.assemble("  ", (run.status, STYLES[run.status]), f"  {shorten(run.name)}  {printable(what)}")
    return [head, *[Text(f"    {printable(line)}", style="dim") for line in run.lines[-MAX_LINES:]]]


def bar(fraction: float, width: int, is_plain: bool) -> str:
    """Return a bar of which that fraction is full."""
    num_full = round(fraction * width)
    full, empty = (PLAIN_FULL, PLAIN_EMPTY) if is_plain else (FULL, EMPTY)
    return full * num_full + empty * (width - num_full)


def sparkline(values: Sequence[float], width: int, is_plain: bool) -> str:
    """Return the curve in one line of that width, from its lowest to its highest value."""
    known = [value for value in values if math.isfinite(value)]
    size = max(1.0, len(known) / width)
    parts = [known[int(place * size) : max(int(place * size) + 1, int((place + 1) * size))] for place in range(width)]
    means = [math.fsum(part) / len(part) for part in parts if part]
    low, high = min(means, default=0.0), max(means, default=0.0)
    bars = PLAIN_BARS if is_plain else BARS
    span = high - low
    places = [(mean - low) / span * (len(bars) - 1) if span > 0 else 0 for mean in means]
    return "".join(bars[round(place)] for place in places).ljust(width)
