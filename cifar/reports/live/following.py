"""Files that a run is still writing, read as they grow: only what is new, and nothing of a half-written line."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from cifar.base.in_place import no_links
from cifar.reports.runs.records import is_count, is_number, read_json, tidy

MEMORY = 64  # bytes before the place reached, by which a file that was cut and written again is known
MAX_BYTES = 8_000_000  # of new lines read at once; of a longer file the beginning is left out
LOG_BYTES = 8192  # of a log's end
PREFIX = re.compile(r"^\[[^\]]*\]\[[^\]]*\]\[([A-Z]+)\] ")  # [time][module][LEVEL] of a line in run.log
Content = TypeVar("Content")


@dataclass
class Metrics:
    """What a metrics.jsonl said so far: steps done, the seconds they took, and curves."""

    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    epoch_steps: int | None = None  # the steps of an epoch, once one is over
    speed: float | None = None
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)

    def add(self, entry: Any) -> None:
        """Take one line's content in; what no run writes is left out."""
        if not isinstance(entry, dict) or not is_count(entry.get("step")) or not is_count(entry.get("epoch")):
            return
        if entry["epoch"] > 1 and self.epoch == 1:
            self.epoch_steps = self.step
        self.step, self.epoch = entry["step"], entry["epoch"]
        numbers = {key: float(value) for key, value in entry.items() if is_number(value)}
        self.seconds = numbers.get("time_seconds", self.seconds)
        self.speed = numbers.get("train/images_per_second", self.speed)
        for key, values in (("train/loss", self.losses), ("val/accuracy", self.accuracies)):
            values += [numbers[key]] if key in numbers else []


class MetricsTail:
    """Follow a metrics.jsonl: `read` returns what it says so far, after a look at what is new."""

    def __init__(self, path: Path) -> None:
        self.path, self.offset, self.before, self.metrics = path, 0, b"", Metrics()

    def read(self) -> Metrics:
        """Return what the file says; from its beginning, if a resumed run has cut it."""
        try:
            with open(self.path, "rb", opener=no_links) as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, self.offset - len(self.before)))
                if size < self.offset or file.read(len(self.before)) != self.before:
                    self.offset, self.before, self.metrics = 0, b"", Metrics()
                file.seek(max(self.offset, size - MAX_BYTES))
                new = file.read(MAX_BYTES)
        except OSError:
            return self.metrics
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self.metrics.add(read_json(line))
        if whole:
            self.offset, self.before = size - len(new) + len(whole), whole[-MEMORY:]
        return self.metrics


class Cached(Generic[Content]):
    """A file's content, read again only when the file has changed."""

    def __init__(self, path: Path, read: Callable[[Path], Content]) -> None:
        self.path, self.reader, self.stamp = path, read, (-1, -1, -1)
        self.content: Content | None = None

    def read(self) -> Content | None:
        """Return the content; None for a file that is not there."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
        if stamp != self.stamp:
            self.content, self.stamp = self.reader(self.path), stamp
        return self.content


def log_lines(folder: Path) -> list[str]:
    """Return the last lines of the run's log, without the times and places before them."""
    try:
        with open(folder / "run.log", "rb", opener=no_links) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            text = file.read(LOG_BYTES).decode(errors="replace")
    except OSError:
        return []
    return [tidy(PREFIX.sub("", line)) for line in text.splitlines() if line.strip()]
